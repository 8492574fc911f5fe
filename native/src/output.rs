//! Results of `globe locate` as text; where it goes is another module's business.

mod csv;
mod geojson;
mod json;
mod text;

use globe_engine::LocateResult;
use globe_geo::Precision;
use serde::Serialize;

use crate::args::Format;
use crate::memory::PhaseMemory;

pub use text::coordinates;

/// What became of one image.
pub struct Record {
    /// Its path as given.
    pub image: String,
    /// The result, or why there is none.
    pub outcome: Result<LocateResult, String>,
    /// Memory of each phase, that of loading included.
    pub memory: Vec<PhaseMemory>,
}

/// What became of one image, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// At least one place was found.
    Located,
    /// The image was answered, but no answer names a known place.
    NotLocated,
    /// The image could not be read or answered.
    Failed,
}

impl Status {
    /// The word in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Located => "located",
            Self::NotLocated => "not_located",
            Self::Failed => "failed",
        }
    }
}

impl Record {
    /// What became of the image.
    pub fn status(&self) -> Status {
        match &self.outcome {
            Ok(result) if result.outcome.located => Status::Located,
            Ok(_) => Status::NotLocated,
            Err(_) => Status::Failed,
        }
    }
}

/// Turns records into one document.
pub trait Formatter {
    /// Comes before all records.
    fn begin(&mut self) -> String;
    /// One more record.
    fn record(&mut self, record: &Record) -> anyhow::Result<String>;
    /// Comes after all records.
    fn end(&mut self) -> String;
}

/// The formatter of a format.
pub fn formatter(format: Format, precision: Precision) -> Box<dyn Formatter> {
    match format {
        Format::Text => Box::new(text::Text::new(precision)),
        Format::Json => Box::<json::Array>::default(),
        Format::Jsonl => Box::new(json::Lines),
        Format::Csv => Box::new(csv::Csv),
        Format::Geojson => Box::<geojson::GeoJson>::default(),
    }
}

/// Time that an image took, without reading its file.
pub fn seconds(result: &LocateResult) -> f64 {
    let timings = &result.timings;
    (timings.prepare_ms + timings.prefill_ms + timings.decode_ms) / 1e3
}

#[cfg(test)]
mod tests {
    use globe_engine::{ExifGps, SampleResult, Sampling, StopReason, Timings};
    use globe_geo::{Gazetteer, Outcome, ParsedAnswer, Sample, candidates, parse_answer};

    use super::*;

    /// The document of all records of the tests below.
    pub fn document(format: Format, precision: Precision) -> String {
        let mut formatter = formatter(format, precision);
        let mut document = formatter.begin();
        for record in [located(precision), not_located(), failed()] {
            document += &formatter.record(&record).unwrap();
        }
        document + &formatter.end()
    }

    /// The document without any record.
    pub fn empty_document(format: Format) -> String {
        let mut formatter = formatter(format, Precision::City);
        formatter.begin() + &formatter.end()
    }

    fn located(precision: Precision) -> Record {
        let texts = [
            "<answer>\ncountry: France\ncity: Lyon\n</answer>",
            "<answer>\ncountry: France\ncity: Lyon\n</answer>",
            "Bonn, Germany",
            "country: Atlantis\ncity: Nowhereville",
            "I cannot determine this.",
            "...",
        ];
        let gps = Some(ExifGps { lat: 45.764, lon: -0.001 });
        let memory = vec![PhaseMemory {
            phase: "load",
            device_bytes_in_use: 7,
            device_bytes_reserved: 8,
            host_peak_bytes: None,
        }];
        Record { image: "a, \"b\".jpg".into(), outcome: Ok(result(&texts, precision, gps)), memory }
    }

    fn not_located() -> Record {
        let outcome = Ok(result(&["...", ""], Precision::City, None));
        Record { image: "b.jpg".into(), outcome, memory: Vec::new() }
    }

    fn failed() -> Record {
        let outcome = Err("image is empty".into());
        Record { image: "c.jpg".into(), outcome, memory: Vec::new() }
    }

    fn result(texts: &[&str], precision: Precision, exif_gps: Option<ExifGps>) -> LocateResult {
        let gazetteer = Gazetteer::full().unwrap();
        let answers: Vec<ParsedAnswer> = texts.iter().map(|text| parse_answer(text)).collect();
        let samples: Vec<Sample> =
            answers.iter().map(|a| Sample::from_answer(a, &gazetteer)).collect();
        let outcome: Outcome = candidates(&samples, 5).rounded(precision, &gazetteer);
        let answers = answers.into_iter().zip(texts).map(|(answer, text)| SampleResult {
            parse_status: answer.status,
            country: answer.country,
            city: answer.city,
            reasoning: answer.reasoning,
            text: Some((*text).into()),
            tokens: 4,
            stop: StopReason::EndOfText,
        });
        LocateResult {
            schema: 1,
            outcome,
            answers: answers.collect(),
            exif_gps,
            model: "qwen2_5_vl".into(),
            adapter: "test".into(),
            prompt_sha256: "00".into(),
            gazetteer: gazetteer.version().into(),
            sampling: Sampling::default(),
            seed: 0,
            timings: Timings { decode_ms: 1500.0, ..Timings::default() },
        }
    }

    #[test]
    fn words_and_json_agree() {
        for status in [Status::Located, Status::NotLocated, Status::Failed] {
            assert_eq!(serde_json::to_value(status).unwrap(), status.name());
        }
        assert_eq!(located(Precision::City).status(), Status::Located);
        assert_eq!(not_located().status(), Status::NotLocated);
        assert_eq!(failed().status(), Status::Failed);
    }
}
