//! Bytes to typed views: safetensors files and their index.
//!
//! Bytes come through [`Source`] and named files through [`Files`], so a folder on disk and a
//! folder in a browser load by the same path. This crate opens no file itself, with these
//! exceptions, absent on wasm32: `mapped` maps a local folder into memory, `pack` and `export`
//! write one.

mod checkpoint;
mod convert;
mod dtype;
mod error;
#[cfg(not(target_arch = "wasm32"))]
pub mod export;
pub mod gguf;
mod header;
mod index;
mod listing;
mod lora;
#[cfg(not(target_arch = "wasm32"))]
mod mapped;
mod names;
#[cfg(not(target_arch = "wasm32"))]
pub mod pack;
pub mod packed;
mod quant;
mod replaced;
mod source;
mod tensors;
mod write;

pub use checkpoint::{Checkpoint, DtypeSummary, INDEX_FILE, SINGLE_FILE, TensorInfo};
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use header::MAX_HEADER_BYTES;
pub use listing::MAX_LISTED;
pub use lora::{ADAPTER_CONFIG_FILE, ADAPTER_FILE, Adapter, Merged};
#[cfg(not(target_arch = "wasm32"))]
pub use mapped::{Folder, Mapped};
pub use names::{MissingTensor, NameReport, ShapeMismatch};
pub use quant::{BLOCK, QuantError, Quantized, WeightFormat, dequantize, quantize};
pub use replaced::Replaced;
pub use source::{Files, MAX_WHOLE_FILE_BYTES, MemoryFiles, Source, read_file};
pub use tensors::SourceTensors;
pub use write::{OutTensor, f32_safetensors_header, write_f32_safetensors, write_safetensors};
