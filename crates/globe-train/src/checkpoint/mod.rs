//! Checkpoints that survive a crash at any moment, and adapters in PEFT's format.

mod adapter;
mod disk;
mod store;

pub use adapter::{ADAPTER_CONFIG, ADAPTER_MODEL, Adapter, AdapterConfig, LoraLayer};
pub use disk::{Disk, RealDisk};
pub use store::{LATEST, Loaded, MANIFEST, Store};
