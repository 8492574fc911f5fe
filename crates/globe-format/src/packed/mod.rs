//! Packed model folders: `manifest.json`, shards of packed weights, and the small files of the
//! checkpoint they were made from.
//!
//! The data is one virtual array of bytes, cut into shards of equal size. Arrays of words and of
//! scales start at multiples of [`ALIGN_BYTES`], with zeros between, and may span shards. Matrices
//! are stored as in [`quantize`](crate::quantize), vectors as plain f32. A matrix is cut by rows
//! into parts whose words fit one binding.

mod damage;
mod digest;
mod manifest;
mod plan;
mod reader;
mod spec;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use digest::{hex, sha256, stream};

pub use damage::{Damage, DamageReport};
pub use manifest::{
    ALIGN_BYTES, Extent, FORMAT_NAME, FileEntry, JOURNAL_FILE, MANIFEST_FILE, MAX_PART_BYTES,
    Manifest, PackedTensor, Part, Provenance, VERSION, format_of_bits,
};
pub use plan::plan;
pub use reader::{Packed, digest_files, is_packed, verify};
pub use spec::{Class, RowOrder, SourceRows, TensorSpec};
