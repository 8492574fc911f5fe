//! Cells of a row to a sample, whatever file they came from.

use std::path::{Path, PathBuf};

use super::{ImageSource, Sample};
use crate::{Error, Result};

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Text(String),
    Number(f64),
    Bool(bool),
    /// Texts of a list; a list of objects with a `text` gives those.
    List(Vec<String>),
    Image(ImageSource),
    /// Anything else, by the name of its type.
    Other(String),
}

/// A row: names and values of its columns, and where it stands.
pub(super) struct Row {
    pub file: PathBuf,
    /// Counted from 1, header not included.
    pub row: usize,
    pub cells: Vec<(String, Cell)>,
}

const ID: &[&str] = &["id", "IMG_ID"];
const IMAGE: &[&str] = &["images", "image", "image_path", "file_name", "IMG_ID"];
const LAT: &[&str] = &["LAT", "latitude", "lat"];
const LON: &[&str] = &["LON", "longitude", "lon"];
const SOLUTION: &[&str] = &["solution", "__#solution"];
const CLUES: &[&str] = &["entities", "clues"];

impl Row {
    /// The sample, with photos looked for in `images`.
    pub fn sample(&self, images: &Path) -> Result<Sample> {
        let solution = self.text(SOLUTION)?;
        let place = |label: &str| -> Result<Option<String>> {
            let own = self.text(&[label])?;
            Ok(own.or_else(|| solution.as_deref().and_then(|s| tagged(s, label))))
        };
        let (country, city) = (place("country")?, place("city")?);
        if let Some(text) = solution.as_deref().filter(|_| country.is_none()) {
            let reason = format!("no <country>…</country> in `{}`", shortened(text));
            return Err(self.fail(SOLUTION[0], reason));
        }
        let stem = self.file.file_name().unwrap_or_default().to_string_lossy();
        Ok(Sample {
            id: self.text(ID)?.unwrap_or_else(|| format!("{stem}:{}", self.row)),
            image: self.image(images)?,
            country,
            city,
            position: self.position()?,
            clues: self.list(CLUES)?,
            response: self.text(&["response"])?,
            label: self.label()?,
        })
    }

    /// The first of the columns that is there and not null.
    fn find<'a>(&'a self, names: &[&'a str]) -> Option<(&'a str, &'a Cell)> {
        names.iter().find_map(|name| {
            let (_, cell) = self.cells.iter().find(|(n, c)| n == name && *c != Cell::Null)?;
            Some((*name, cell))
        })
    }

    fn text(&self, names: &[&str]) -> Result<Option<String>> {
        match self.find(names) {
            None => Ok(None),
            Some((_, Cell::Text(text))) => {
                Ok(Some(text.trim().to_owned()).filter(|t| !t.is_empty()))
            }
            Some((_, Cell::Number(number))) => Ok(Some(number.to_string())),
            Some((name, other)) => Err(self.wrong(name, "text", other)),
        }
    }

    fn number(&self, names: &[&str], limit: f64) -> Result<Option<f64>> {
        let value = match self.find(names) {
            None => return Ok(None),
            Some((_, Cell::Text(text))) if text.trim().is_empty() => return Ok(None),
            Some((_, Cell::Number(number))) => Some(*number),
            Some((_, Cell::Text(text))) => text.trim().parse().ok(),
            Some(_) => None,
        };
        let (name, cell) = self.find(names).unwrap_or((names[0], &Cell::Null));
        match value.filter(|v: &f64| v.abs() <= limit) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(name, &format!("a number of degrees up to {limit}"), cell)),
        }
    }

    fn position(&self) -> Result<Option<(f64, f64)>> {
        match (self.number(LAT, 90.0)?, self.number(LON, 180.0)?) {
            (Some(lat), Some(lon)) => Ok(Some((lat, lon))),
            (None, None) => Ok(None),
            (None, _) => Err(self.fail(LAT[0], "longitude without latitude".into())),
            (_, None) => Err(self.fail(LON[0], "latitude without longitude".into())),
        }
    }

    fn list(&self, names: &[&str]) -> Result<Vec<String>> {
        match self.find(names) {
            None => Ok(Vec::new()),
            Some((_, Cell::List(list))) => Ok(list.clone()),
            Some((_, Cell::Text(text))) => {
                let parts = text.split(';').map(str::trim).filter(|p| !p.is_empty());
                Ok(parts.map(str::to_owned).collect())
            }
            Some((name, other)) => Err(self.wrong(name, "a list of texts", other)),
        }
    }

    fn label(&self) -> Result<Option<bool>> {
        match self.find(&["label"]) {
            None => Ok(None),
            Some((_, Cell::Bool(label))) => Ok(Some(*label)),
            Some((name, cell)) => {
                let text = match cell {
                    Cell::Text(text) => text.trim().to_lowercase(),
                    Cell::Number(number) => number.to_string(),
                    _ => String::new(),
                };
                match text.as_str() {
                    "yes" | "true" | "1" => Ok(Some(true)),
                    "no" | "false" | "0" => Ok(Some(false)),
                    _ => Err(self.wrong(name, "yes or no", cell)),
                }
            }
        }
    }

    fn image(&self, folder: &Path) -> Result<ImageSource> {
        match self.find(IMAGE) {
            Some((_, Cell::Image(image))) => Ok(image.clone()),
            Some((_, Cell::Text(path))) => Ok(ImageSource::File(folder.join(path.trim()))),
            Some((_, Cell::List(paths))) if !paths.is_empty() => {
                Ok(ImageSource::File(folder.join(&paths[0])))
            }
            Some((name, other)) => Err(self.wrong(name, "a photo", other)),
            None => {
                let known: Vec<&str> = self.cells.iter().map(|(name, _)| name.as_str()).collect();
                let reason = format!("missing or empty; the columns are {}", known.join(", "));
                Err(self.fail(IMAGE[0], reason))
            }
        }
    }

    fn wrong(&self, column: &str, expected: &str, cell: &Cell) -> Error {
        self.fail(column, format!("expected {expected}, got {}", describe(cell)))
    }

    /// An error at this row.
    pub fn fail(&self, column: &str, reason: String) -> Error {
        Error::Data { file: self.file.clone(), row: self.row, column: column.into(), reason }
    }
}

fn describe(cell: &Cell) -> String {
    match cell {
        Cell::Null => "nothing".into(),
        Cell::Text(text) => format!("`{}`", shortened(text)),
        Cell::Number(number) => format!("the number {number}"),
        Cell::Bool(value) => format!("`{value}`"),
        Cell::List(list) => format!("a list of {}", list.len()),
        Cell::Image(_) => "a photo".into(),
        Cell::Other(kind) => kind.clone(),
    }
}

fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    let short: String = text.chars().take(MAX_CHARS).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

/// What stands between `<label>` and `</label>`, or in the line `label: …`.
fn tagged(text: &str, label: &str) -> Option<String> {
    let between = || {
        let start = text.find(&format!("<{label}>"))? + label.len() + 2;
        let length = text[start..].find(&format!("</{label}>"))?;
        Some(text[start..start + length].trim().to_owned())
    };
    let line = || {
        let value = text.lines().find_map(|l| l.trim().strip_prefix(label)?.strip_prefix(':'))?;
        Some(value.trim().to_owned())
    };
    between().or_else(line).filter(|value| !value.is_empty())
}
