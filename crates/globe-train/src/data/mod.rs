//! Training data.

mod sample;

pub use sample::{ImageSource, Sample};
