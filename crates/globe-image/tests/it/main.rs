//! Tests of globe-image against Pillow and transformers; see `tests/golden/make.py`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, also in helpers")]

mod decode;
mod exif;
mod fuzz;
mod golden;
mod preprocess;
mod refuse;
mod resize;
