//! What a photo says about itself, before any model reads it.

use globe_image::{DecodeLimits, Photo, decode};
use serde::Serialize;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::engine::json;
use crate::error::Failure;

/// A photo of 64 megapixels takes 200 MB as pixels; twice that must fit beside a model.
const LIMITS: DecodeLimits =
    DecodeLimits { max_pixels: 64_000_000, max_bytes: 512 << 20, background: [255; 3] };

/// Facts for the visitor; the position never reaches a model.
#[derive(Serialize)]
struct Info {
    format: Option<String>,
    width: usize,
    height: usize,
    orientation: u8,
    gps: Option<Position>,
    warning: Option<&'static str>,
}

/// Degrees north and east.
#[derive(Serialize)]
struct Position {
    lat: f64,
    lon: f64,
}

/// Decodes an image file; one that cannot be used is an error of code `Image`.
pub(crate) fn read(bytes: &[u8]) -> Result<Photo, Failure> {
    Ok(decode(bytes, &LIMITS)?)
}

/// Size, format and EXIF position of an image file, as JSON.
///
/// # Errors
/// Code `Image`, naming what is wrong with the file.
#[wasm_bindgen]
pub fn inspect(bytes: &[u8]) -> Result<String, JsValue> {
    let photo = read(bytes)?;
    json(&Info {
        format: photo.format.map(|format| format.to_string()),
        width: photo.width,
        height: photo.height,
        orientation: photo.orientation,
        gps: photo.gps.map(|gps| Position { lat: gps.latitude, lon: gps.longitude }),
        warning: photo.exif_warning,
    })
}
