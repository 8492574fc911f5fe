//! Packed model folders: `manifest.json`, shards of packed weights, and the small files of the
//! checkpoint they were made from.

mod spec;

pub use spec::{Class, RowOrder, SourceRows, TensorSpec};
