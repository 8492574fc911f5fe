//! Parquet files with photos inside, one row group at a time.

use std::{fs::File, path::Path, sync::Arc};

use parquet::{
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row as ParquetRow},
};

use super::{
    ImageSource, Sample,
    cells::{Cell, Row},
};
use crate::{Error, Result};

fn open(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(Error::io("cannot open the data file", path))?;
    SerializedFileReader::new(file).map_err(|e| fail(path, &e))
}

fn fail(path: &Path, error: &ParquetError) -> Error {
    Error::Parquet { file: path.into(), reason: error.to_string() }
}

/// Rows of each row group.
pub(super) fn group_rows(path: &Path) -> Result<Vec<usize>> {
    let reader = open(path)?;
    let groups = reader.metadata().row_groups();
    Ok(groups.iter().map(|g| usize::try_from(g.num_rows()).unwrap_or(0)).collect())
}

/// All rows of one row group; errors of single rows stay with their rows. `first_row` is the number
/// of rows before the group.
pub(super) fn read_group(
    path: &Path,
    group: usize,
    first_row: usize,
    images: &Path,
) -> Result<Vec<Result<Sample>>> {
    let reader = open(path)?;
    let rows = reader.get_row_group(group).map_err(|e| fail(path, &e))?;
    let rows = rows.get_row_iter(None).map_err(|e| fail(path, &e))?;
    let mut samples = Vec::new();
    for (i, row) in rows.enumerate() {
        let row = row.map_err(|e| fail(path, &e))?;
        let cells = row.get_column_iter().map(|(name, field)| (name.clone(), cell(field)));
        let cells = cells.collect();
        let row = Row { file: path.into(), row: first_row + i + 1, cells };
        samples.push(row.sample(images));
    }
    Ok(samples)
}

fn cell(field: &Field) -> Cell {
    match field {
        Field::Null => Cell::Null,
        Field::Bool(value) => Cell::Bool(*value),
        Field::Str(text) => Cell::Text(text.clone()),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Cell::Text(text.into()),
            Err(_) => Cell::Image(ImageSource::Bytes(Arc::from(bytes.data()))),
        },
        Field::Group(row) => group_cell(row),
        Field::ListInternal(list) => list_cell(list.elements()),
        other => {
            number(other).map_or_else(|| Cell::Other(format!("a value like {other}")), Cell::Number)
        }
    }
}

fn number(field: &Field) -> Option<f64> {
    Some(match field {
        Field::Byte(n) => f64::from(*n),
        Field::Short(n) => f64::from(*n),
        Field::Int(n) => f64::from(*n),
        Field::Long(n) => *n as f64,
        Field::UByte(n) => f64::from(*n),
        Field::UShort(n) => f64::from(*n),
        Field::UInt(n) => f64::from(*n),
        Field::ULong(n) => *n as f64,
        Field::Float(n) => f64::from(*n),
        Field::Double(n) => *n,
        _ => return None,
    })
}

/// `{bytes, path}` is a photo, `{text}` a text.
fn group_cell(row: &ParquetRow) -> Cell {
    let of = |name: &str| row.get_column_iter().find(|(n, _)| *n == name).map(|(_, f)| f);
    match (of("bytes"), of("path"), of("text")) {
        (Some(Field::Bytes(bytes)), ..) => Cell::Image(ImageSource::Bytes(Arc::from(bytes.data()))),
        (_, Some(Field::Str(path)), _) => Cell::Text(path.clone()),
        (.., Some(Field::Str(text))) => Cell::Text(text.clone()),
        _ => Cell::Other("an object without bytes, path or text".into()),
    }
}

/// The first photo of a list of photos, or a list of texts.
fn list_cell(elements: &[Field]) -> Cell {
    let mut texts = Vec::new();
    for element in elements {
        match cell(element) {
            image @ Cell::Image(_) => return image,
            Cell::Text(text) => texts.push(text),
            Cell::Null => {}
            _ => return Cell::Other("a list of something else".into()),
        }
    }
    Cell::List(texts)
}
