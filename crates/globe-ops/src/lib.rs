//! The kernels as Burn ops; the only crate that names Burn, CubeCL or wgpu.
//!
//! Each module holds one op: a backend extension trait whose default body, in Burn primitives,
//! is the oracle (it runs on the CPU through `Flex`, and gives gradients on `Autodiff`); its
//! `CubeBackend` method, which launches the kernel of the same name; and a checked function on
//! tensors. All tensors are f32 or i32, row-major and contiguous.

mod add_rms_norm;
mod argmax;
mod attention;
#[cfg(feature = "autodiff")]
mod autodiff;
mod device;
mod error;
mod gather_rows;
mod gelu;
mod launch;
mod linear;
mod rms_norm;
mod rotary;
mod scatter_rows;
mod shapes;
mod silu_mul;
mod transfer;

pub use add_rms_norm::add_rms_norm;
pub use argmax::argmax;
pub use attention::{MAX_HEAD_DIM, attention};
pub use burn::tensor::{Device, Int, Tensor};
pub use device::{Adapter, AdapterFeatures, Compute, DeviceChoice, adapters, open_device};
pub use error::{Error, Result};
pub use gather_rows::gather_rows;
pub use gelu::gelu;
pub use launch::dispatch_count;
pub use linear::linear;
pub use rms_norm::rms_norm;
pub use rotary::rotary;
pub use scatter_rows::scatter_rows;
pub use silu_mul::silu_mul;
pub use transfer::{read_f32, read_i32, tensor_f32, tensor_i32, zeros};
