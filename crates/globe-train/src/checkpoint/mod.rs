//! Checkpoints that survive a crash at any moment, and adapters in PEFT's format.

mod adapter;
mod disk;
mod manifest;
mod store;
mod writer;

pub(crate) use adapter::peft_metadata;
pub use adapter::{ADAPTER_CONFIG, ADAPTER_MODEL, Adapter, AdapterConfig, LoraLayer};
pub use disk::{Disk, RealDisk};
pub use manifest::MANIFEST;
pub use store::{LATEST, Loaded, Store};
pub use writer::Writer;
