//! One row of training data.

use std::{borrow::Cow, fs, path::PathBuf, sync::Arc};

use crate::{Error, Result};

/// Where the bytes of a photo are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// In memory, as stored in a parquet row.
    Bytes(Arc<[u8]>),
    /// In a file.
    File(PathBuf),
}

impl ImageSource {
    /// The encoded bytes of the photo.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(path) => {
                fs::read(path).map(Cow::Owned).map_err(Error::io("cannot read the image", path))
            }
        }
    }
}

/// One photo with what is known about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Where the row stands, as `file:row`, or the id the row gives.
    pub id: String,
    /// The photo.
    pub image: ImageSource,
    /// Name of the country.
    pub country: Option<String>,
    /// Name of the city.
    pub city: Option<String>,
    /// Latitude and longitude in degrees.
    pub position: Option<(f64, f64)>,
    /// Visible things an annotator named.
    pub clues: Vec<String>,
    /// The answer to imitate.
    pub response: Option<String>,
    /// For the reward model: does the reasoning in `response` locate the photo?
    pub label: Option<bool>,
}
