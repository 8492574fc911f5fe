//! Tests of globe-image against Pillow and transformers; see `tests/golden/make.py`.

mod decode;
mod exif;
mod fuzz;
mod golden;
mod preprocess;
mod refuse;
mod resize;
