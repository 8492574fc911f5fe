//! Results as JSON: one array, or one object per line.

use globe_engine::LocateResult;
use serde::Serialize;

use super::{Formatter, Record, Status};
use crate::memory::PhaseMemory;

/// One array.
#[derive(Default)]
pub struct Array {
    n_records: usize,
}

/// One object per line.
pub struct Lines;

#[derive(Serialize)]
struct Object<'a> {
    image: &'a str,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(flatten)]
    result: Option<&'a LocateResult>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    memory: &'a [PhaseMemory],
}

fn object(record: &Record) -> anyhow::Result<String> {
    let object = Object {
        image: &record.image,
        status: record.status(),
        error: record.outcome.as_ref().err().map(String::as_str),
        result: record.outcome.as_ref().ok(),
        memory: &record.memory,
    };
    Ok(serde_json::to_string(&object)?)
}

impl Formatter for Array {
    fn begin(&mut self) -> String {
        "[".into()
    }

    fn record(&mut self, record: &Record) -> anyhow::Result<String> {
        let separator = if self.n_records == 0 { "\n" } else { ",\n" };
        self.n_records += 1;
        Ok(format!("{separator}{}", object(record)?))
    }

    fn end(&mut self) -> String {
        if self.n_records == 0 { "]\n".into() } else { "\n]\n".into() }
    }
}

impl Formatter for Lines {
    fn begin(&mut self) -> String {
        String::new()
    }

    fn record(&mut self, record: &Record) -> anyhow::Result<String> {
        Ok(object(record)? + "\n")
    }

    fn end(&mut self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use globe_geo::Precision;
    use serde_json::Value;

    use super::super::tests::{document, empty_document};
    use crate::args::Format;

    #[test]
    fn an_array_holds_every_image() {
        let json: Value = serde_json::from_str(&document(Format::Json, Precision::City)).unwrap();
        let statuses: Vec<_> = json.as_array().unwrap().iter().map(|o| &o["status"]).collect();
        assert_eq!(statuses, ["located", "not_located", "failed"]);
        assert_eq!(json[0]["image"], "a, \"b\".jpg");
        assert_eq!(json[0]["schema"], 1);
        assert_eq!(json[0]["candidates"][0]["city"], "Lyon");
        assert_eq!(json[0]["candidates"][0]["votes"], 2);
        assert_eq!(json[0]["refusals"], 1);
        assert_eq!(json[0]["sampling"]["temperature"].to_string(), "0.7");
        assert_eq!(json[0]["answers"][0]["parse_status"], "strict");
        assert!(json[0].get("error").is_none());
        assert_eq!(json[0]["memory"][0]["phase"], "load");
        assert_eq!(json[0]["memory"][0]["device_bytes_reserved"], 8);
        assert_eq!(json[1]["candidates"], Value::Array(vec![]));
        assert_eq!(json[2].as_object().unwrap().len(), 3);
        assert_eq!(json[2]["error"], "image is empty");
    }

    #[test]
    fn lines_are_the_same_objects() {
        let array: Value = serde_json::from_str(&document(Format::Json, Precision::City)).unwrap();
        let lines = document(Format::Jsonl, Precision::City);
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        assert_eq!(array, Value::Array(lines.collect()));
    }

    #[test]
    fn nothing_is_valid_too() {
        assert_eq!(empty_document(Format::Json), "[]\n");
        assert_eq!(empty_document(Format::Jsonl), "");
    }
}
