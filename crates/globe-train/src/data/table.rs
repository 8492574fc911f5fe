//! JSONL and CSV rows; photos stay in their folder until asked for.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use serde_json::Value;

use super::{
    Sample,
    cells::{Cell, Row},
};
use crate::{Error, Result};

/// All rows of a JSONL file; errors stay with their rows.
pub(super) fn read_jsonl(path: &Path, images: &Path) -> Result<Vec<Result<Sample>>> {
    let file = File::open(path).map_err(Error::io("cannot open the data file", path))?;
    let mut samples = Vec::new();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(Error::io("cannot read the data file", path))?;
        if line.trim().is_empty() {
            continue;
        }
        let row = Row { file: path.into(), row: i + 1, cells: Vec::new() };
        samples.push(match serde_json::from_str(&line) {
            Ok(Value::Object(fields)) => {
                let cells = fields.iter().map(|(name, value)| (name.clone(), cell(value)));
                Row { cells: cells.collect(), ..row }.sample(images)
            }
            Ok(_) => Err(row.fail("", "the line is no JSON object".into())),
            Err(error) => Err(row.fail("", error.to_string())),
        });
    }
    Ok(samples)
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(value) => Cell::Bool(*value),
        Value::Number(number) => Cell::Number(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Cell::Text(text.clone()),
        Value::Array(items) => {
            let texts: Option<Vec<String>> = items.iter().map(text_of).collect();
            texts.map_or(Cell::Other("a list of something else".into()), Cell::List)
        }
        Value::Object(fields) => match fields.get("path").and_then(Value::as_str) {
            Some(path) => Cell::Text(path.into()),
            None => Cell::Other("an object".into()),
        },
    }
}

/// A text, or the `text` or `path` of an object.
fn text_of(value: &Value) -> Option<String> {
    let inner = ["text", "path"].into_iter().find_map(|name| value.get(name)).unwrap_or(value);
    inner.as_str().map(str::to_owned)
}

/// All rows of a CSV file with a header; errors stay with their rows.
pub(super) fn read_csv(path: &Path, images: &Path) -> Result<Vec<Result<Sample>>> {
    let file = File::open(path).map_err(Error::io("cannot open the data file", path))?;
    let mut reader = csv::Reader::from_reader(BufReader::new(file));
    let bad = |row: usize, reason: String| Error::Data {
        file: path.into(),
        row,
        column: String::new(),
        reason,
    };
    let header = reader.headers().map_err(|e| bad(0, e.to_string()))?.clone();
    let mut samples = Vec::new();
    for (i, record) in reader.records().enumerate() {
        samples.push(match record {
            Ok(record) => {
                let cells = header.iter().zip(&record).map(|(name, value)| {
                    let empty = value.trim().is_empty();
                    let cell = if empty { Cell::Null } else { Cell::Text(value.into()) };
                    (name.trim().to_owned(), cell)
                });
                Row { file: path.into(), row: i + 1, cells: cells.collect() }.sample(images)
            }
            Err(error) => Err(bad(i + 1, error.to_string())),
        });
    }
    Ok(samples)
}
