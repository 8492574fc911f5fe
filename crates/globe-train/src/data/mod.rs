//! Training data: parquet with photos inside, or JSONL and CSV beside a folder of photos.

mod cells;
mod check;
mod dataset;
mod parquet;
mod sample;
mod stream;
mod table;

pub use check::{Check, Problem, Problems, check};
pub use dataset::Dataset;
pub use sample::{ImageSource, Sample};
pub use stream::{BadImage, Cursor, Part, Stream, StreamOptions};
