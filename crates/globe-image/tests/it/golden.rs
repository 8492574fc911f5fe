//! The committed golden files, and comparisons that say where they fail.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// What Pillow says about one file of `tests/golden/photos`.
#[derive(Deserialize)]
pub struct Expected {
    pub width: usize,
    pub height: usize,
    pub stored_size: [usize; 2],
    pub orientation: u8,
    pub gps: Option<[f64; 2]>,
    pub lossy: bool,
    pub sha256: String,
}

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden", name].iter().collect()
}

/// A file of `tests/golden`.
pub fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn json<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&bytes(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// An input photo by its file name.
pub fn photo(name: &str) -> Vec<u8> {
    bytes(&format!("photos/{name}"))
}

/// All photos with their expectations, by file name.
pub fn photos() -> BTreeMap<String, Expected> {
    json("photos.json")
}

/// RGB that Pillow decodes from a lossy photo.
pub fn expected_rgb(name: &str) -> Vec<u8> {
    let png = bytes(&format!("expected/{name}.png"));
    image::load_from_memory(&png).unwrap().into_rgb8().into_raw()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The generator of `make.py`: `[height, width, 3]`.
pub fn noise(width: usize, height: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(width * height * 3).collect()
}

/// Largest and mean difference in levels.
pub fn difference(name: &str, got: &[u8], expected: &[u8]) -> (u8, f64) {
    assert_eq!(got.len(), expected.len(), "{name}: length");
    let levels = || got.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = levels().map(f64::from).sum();
    (levels().max().unwrap_or(0), sum / got.len() as f64)
}
