//! Results as CSV: one row per place, and one for an image without any.

use globe_engine::LocateResult;
use globe_geo::{Candidate, ParseStatus};

use super::{Formatter, Record, Status, seconds};

/// Other software reads these by name and place: new ones go to the end.
const COLUMNS: [&str; 13] = [
    "id",
    "rank",
    "lat",
    "lon",
    "radius_km",
    "confidence",
    "country_code",
    "region",
    "city",
    "parse_status",
    "seconds",
    "country",
    "votes",
];

type Row = [String; COLUMNS.len()];

/// Comma-separated values with a header.
pub struct Csv;

impl Formatter for Csv {
    fn begin(&mut self) -> String {
        COLUMNS.join(",") + "\n"
    }

    fn record(&mut self, record: &Record) -> anyhow::Result<String> {
        let rows = match &record.outcome {
            Ok(result) if record.status() == Status::Located => {
                let candidates = result.outcome.candidates.iter();
                candidates.map(|candidate| place(&record.image, result, candidate)).collect()
            }
            _ => vec![no_place(record)],
        };
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in rows {
            writer.write_record(row)?;
        }
        Ok(String::from_utf8(writer.into_inner()?)?)
    }

    fn end(&mut self) -> String {
        String::new()
    }
}

fn place(image: &str, result: &LocateResult, candidate: &Candidate) -> Row {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        image.to_owned(),
        candidate.rank.to_string(),
        candidate.lat.to_string(),
        candidate.lon.to_string(),
        candidate.radius_km.to_string(),
        candidate.confidence.to_string(),
        candidate.country_code.clone(),
        text(&candidate.region),
        text(&candidate.city),
        parse_status(result).into(),
        format!("{:.3}", seconds(result)),
        candidate.country.clone(),
        candidate.votes.to_string(),
    ]
}

/// Without coordinates: 0, 0 would be a place.
fn no_place(record: &Record) -> Row {
    let mut row = Row::default();
    row[0] = record.image.clone();
    row[9] = record.status().name().into();
    row[10] =
        record.outcome.as_ref().map_or_else(|_| String::new(), |r| format!("{:.3}", seconds(r)));
    row
}

/// How the answers that name a place were written: all as the prompt asks, or not.
fn parse_status(result: &LocateResult) -> &'static str {
    let lenient = |status: ParseStatus| status == ParseStatus::Lenient;
    match result.answers.iter().any(|answer| lenient(answer.parse_status)) {
        true => "lenient",
        false => "strict",
    }
}

#[cfg(test)]
mod tests {
    use globe_geo::Precision;

    use super::super::tests::{document, empty_document};
    use super::*;
    use crate::args::Format;

    #[test]
    fn one_row_per_place_and_one_without() {
        let document = document(Format::Csv, Precision::City);
        let mut reader = csv::Reader::from_reader(document.as_bytes());
        assert_eq!(reader.headers().unwrap(), COLUMNS.as_slice());
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 4);
        let first: Vec<&str> = rows[0].iter().collect();
        assert_eq!(first[..2], ["a, \"b\".jpg", "1"]);
        assert!((first[2].parse::<f64>().unwrap() - 45.75).abs() < 0.05);
        assert!((first[3].parse::<f64>().unwrap() - 4.85).abs() < 0.05);
        assert_eq!(first[5], (2.0 / 6.0).to_string());
        assert_eq!(
            first[6..],
            ["FR", "Auvergne-Rhône-Alpes", "Lyon", "lenient", "1.500", "France", "2"]
        );
        let empty: Vec<&str> = rows[2].iter().collect();
        assert_eq!(
            empty,
            ["b.jpg", "", "", "", "", "", "", "", "", "not_located", "1.500", "", ""]
        );
        let failed: Vec<&str> = rows[3].iter().collect();
        assert_eq!(failed, ["c.jpg", "", "", "", "", "", "", "", "", "failed", "", "", ""]);
    }

    #[test]
    fn columns_keep_their_place() {
        let header = "id,rank,lat,lon,radius_km,confidence,country_code,region,city,parse_status,seconds,country,votes\n";
        assert_eq!(empty_document(Format::Csv), header);
    }
}
