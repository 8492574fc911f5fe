//! Photo bytes to model patches: decoding, orientation, resizing, normalisation.
//!
//! Two calls: [`decode`] turns the bytes of a JPEG, PNG, WebP or GIF file into a [`Photo`] (upright
//! 8-bit RGB plus the GPS position, if the file has one), and [`preprocess`] turns a photo into the
//! [`Patches`] a Qwen2-VL style vision tower reads. Bytes in, values out: nothing here opens a file.
//!
//! The reference is `transformers`' `Qwen2VLImageProcessorPil`. Decoding and resizing are bit-exact
//! against Pillow and normalisation is bit-exact against that processor; `tests/golden` holds the evidence.

mod config;
mod container;
mod decode;
mod error;
mod exif;
mod jpeg;
mod patches;
mod pixels;
mod resize;
mod smart_resize;

pub use config::PreprocessorConfig;
pub use container::Format;
pub use decode::{DecodeLimits, Photo, decode, upright_size};
pub use error::{Error, Result};
pub use exif::Gps;
pub use patches::{Patches, preprocess};
pub use resize::{Filter, resize_rgb};
pub use smart_resize::smart_resize;
