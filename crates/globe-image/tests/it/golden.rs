//! The committed golden files.

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
