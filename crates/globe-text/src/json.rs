//! JSON files of the model folder, with the file in every error.

use globe_format::{Files, read_file};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The object in `file`, or `None` when the folder lacks it.
pub(crate) async fn read_object<F: Files>(
    files: &F,
    file: &str,
) -> Result<Option<Map<String, Value>>> {
    let Some(bytes) = read_file(files, file).await? else {
        return Ok(None);
    };
    let object = serde_json::from_slice(&bytes).map_err(|error| bad(file, error.to_string()))?;
    Ok(Some(object))
}

/// The error for `file`.
pub(crate) fn bad(file: &str, reason: String) -> Error {
    Error::Json { file: file.into(), reason }
}
