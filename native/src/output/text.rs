//! Results for reading.

use globe_engine::{ExifGps, LocateResult};
use globe_geo::{Candidate, MatchKind, Outcome, Precision};

use super::{Formatter, Record};
use crate::console::printable;

/// Ranked places per image.
pub struct Text {
    /// Of coordinates: as many as the precision asked for can mean.
    decimals: usize,
    any_located: bool,
}

impl Text {
    /// Text at a precision.
    pub fn new(precision: Precision) -> Self {
        let decimals = match precision {
            Precision::Country => 0,
            Precision::Region => 1,
            Precision::City => 2,
        };
        Self { decimals, any_located: false }
    }

    fn result(&mut self, result: &LocateResult) -> Vec<String> {
        let outcome = &result.outcome;
        self.any_located |= outcome.located;
        let mut lines = Vec::new();
        if !outcome.located {
            lines.push("not located: no answer names a place that the gazetteer knows".into());
        }
        let names: Vec<String> = outcome.candidates.iter().map(name).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        for (candidate, name) in outcome.candidates.iter().zip(&names) {
            lines.push(self.candidate(candidate, &format!("{name:width$}"), outcome.samples));
        }
        lines.extend(counts(outcome));
        if let Some(ExifGps { lat, lon }) = result.exif_gps {
            let position = coordinates(lat, lon, self.decimals);
            lines.push(format!("position in the file (not shown to the model): {position}"));
        }
        lines
    }

    fn candidate(&self, candidate: &Candidate, name: &str, samples: usize) -> String {
        let Candidate { rank, votes, radius_km, .. } = candidate;
        let position = coordinates(candidate.lat, candidate.lon, self.decimals);
        let radius = radius(*radius_km);
        let note = note(candidate.match_kind);
        format!("{rank}. {name}  {position}  within {radius} km  {votes} of {samples}{note}")
    }
}

impl Formatter for Text {
    fn begin(&mut self) -> String {
        String::new()
    }

    fn record(&mut self, record: &Record) -> anyhow::Result<String> {
        let lines = match &record.outcome {
            Ok(result) => self.result(result),
            Err(reason) => vec![format!("failed: {reason}")],
        };
        let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
        Ok(format!("{}\n{lines}", printable(&record.image)))
    }

    fn end(&mut self) -> String {
        match self.any_located {
            true => "\n\"5 of 8\" counts answers; it is not a probability.\n".into(),
            false => String::new(),
        }
    }
}

/// City, region, country, as far as known.
fn name(candidate: &Candidate) -> String {
    let parts = [candidate.city.as_ref(), candidate.region.as_ref(), Some(&candidate.country)];
    let mut parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    parts.dedup(); // Singapore, Singapore
    parts.join(", ")
}

/// Answers that name no place, each kind by itself.
fn counts(outcome: &Outcome) -> Option<String> {
    let kinds = [
        (outcome.parse_failures, "unreadable"),
        (outcome.refusals, "refused"),
        (outcome.not_in_gazetteer, "with an unknown place"),
    ];
    let named = kinds.iter().filter(|(n, _)| *n > 0).map(|(n, kind)| format!("{n} {kind}"));
    let list = named.collect::<Vec<_>>().join(", ");
    (!list.is_empty()).then(|| format!("of {} answers: {list}", outcome.samples))
}

fn note(kind: MatchKind) -> &'static str {
    match kind {
        MatchKind::CityElsewhere => "  (the city named lies elsewhere)",
        MatchKind::CityUnknown => "  (the city named is unknown)",
        MatchKind::CountryUnknown => "  (the country named is unknown)",
        _ => "",
    }
}

fn radius(km: f64) -> String {
    if km < 10.0 { format!("{km:.1}") } else { format!("{km:.0}") }
}

/// Latitude and longitude in degrees.
pub fn coordinates(lat: f64, lon: f64, decimals: usize) -> String {
    let scale = 10f64.powi(decimals as i32);
    // Adding zero turns -0 into 0.
    let round = |degrees: f64| (degrees * scale).round() / scale + 0.0;
    format!("{:.decimals$}, {:.decimals$}", round(lat), round(lon))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{document, empty_document};
    use super::*;
    use crate::args::Format;

    #[test]
    fn places_counts_and_positions() {
        let expected = "\
a, \"b\".jpg
  1. Lyon, Auvergne-Rhône-Alpes, France     45.75, 4.85  within 10 km  2 of 6
  2. Bonn, North Rhine-Westphalia, Germany  50.73, 7.10  within 8.4 km  1 of 6
  of 6 answers: 1 unreadable, 1 refused, 1 with an unknown place
  position in the file (not shown to the model): 45.76, 0.00
b.jpg
  not located: no answer names a place that the gazetteer knows
  of 2 answers: 2 unreadable
c.jpg
  failed: image is empty

\"5 of 8\" counts answers; it is not a probability.
";
        assert_eq!(document(Format::Text, Precision::City), expected);
        assert_eq!(empty_document(Format::Text), "");
    }

    #[test]
    fn less_precision_shows_less() {
        let text = document(Format::Text, Precision::Country);
        assert!(text.contains("1. France   49, 2  within"), "{text}");
        assert!(text.contains("(not shown to the model): 46, 0\n"), "{text}");
        assert!(!text.contains("Lyon"), "{text}");
        let text = document(Format::Text, Precision::Region);
        assert!(text.contains("1. Auvergne-Rhône-Alpes, France     45.7, 4.8  within"), "{text}");
    }

    #[test]
    fn coordinates_are_rounded_and_never_minus_zero() {
        assert_eq!(coordinates(-0.004, -179.996, 2), "0.00, -180.00");
        assert_eq!(coordinates(-33.8688, 151.2093, 0), "-34, 151");
    }
}
