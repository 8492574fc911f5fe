//! The kernels as Burn ops; the only crate that names Burn, CubeCL, wgpu or Vulkan.
//!
//! Each module holds one op: a backend extension trait whose default body, in Burn primitives,
//! is the oracle (it runs on the CPU through `Flex`, and gives gradients on `Autodiff`); its
//! `CubeBackend` method, which launches the kernel of the same name; and a checked function on
//! tensors. All tensors are f32 or i32, row-major and contiguous.

mod adamw;
mod adamw_8bit;
mod advance;
mod attention;
mod attention_backward;
mod attention_step;
#[cfg(feature = "autodiff")]
mod autodiff;
mod capture;
mod column_sums;
mod device;
mod error;
mod gather_rows;
mod gelu;
mod gelu_backward;
mod kv;
mod launch;
mod linear;
mod linear_backward_weight;
mod logp_gather;
mod logp_gather_backward;
mod packed;
mod packed_gather;
mod packed_linear;
mod packed_linear_backward;
mod raw_loop;
mod reduce;
mod replay;
mod rms_norm;
mod rms_norm_backward;
mod rms_norm_backward_weight;
mod roof;
mod rotary;
mod rotary_split;
mod rotary_split_backward;
mod sample;
mod scatter_add_rows;
mod scatter_rows;
mod shapes;
mod silu_mul;
mod sum_squares;
mod swiglu;
mod swiglu_backward;
mod transfer;
mod unpack;
mod upload;
// The targets are those of the dependency on `ash`.
#[cfg_attr(not(any(target_os = "linux", target_os = "android", windows)), path = "no_vulkan.rs")]
mod vulkan;

pub use adamw::{AdamStep, adamw};
pub use adamw_8bit::{ByteMeans, adamw_8bit};
pub use advance::{BatchStart, BatchState, MAX_STOP_TOKENS, advance};
pub use attention::{MAX_HEAD_DIM, attention, attention_with_lse};
pub use attention_backward::{SavedAttention, attention_backward, key_ranges};
pub use attention_step::{StepAttention, attention_step, prefix_reads, step_scratch_bytes};
pub use burn::tensor::{Device, Int, Tensor};
pub use capture::{StepGraph, recording_count};
pub use column_sums::column_sums;
pub use device::{
    Adapter, AdapterFeatures, Compute, DeviceChoice, Fragment, TASKS_MAX, Variant, adapters,
    open_device, open_device_with,
};
pub use error::{Error, Result};
pub use gather_rows::gather_rows;
pub use gelu::gelu;
pub use gelu_backward::gelu_backward;
pub use globe_shaders::Reduce;
pub use kv::KvFormat;
pub use launch::{MemoryWatch, dispatch_count};
pub use linear::linear;
pub use linear_backward_weight::linear_backward_weight;
pub use logp_gather::{LogpOptions, logp_gather};
pub use logp_gather_backward::logp_gather_backward;
pub use packed::{BLOCK, PackedMatrix, WeightFormat};
pub use packed_gather::packed_gather;
pub use packed_linear::{Fused, packed_linear};
pub use packed_linear_backward::packed_linear_backward;
pub use raw_loop::{RawLoop, RawQueue, submit_count};
pub use reduce::{reduce_choices, reduce_of};
pub use replay::Replay;
pub use rms_norm::rms_norm;
pub use rms_norm_backward::rms_norm_backward;
pub use rms_norm_backward_weight::rms_norm_backward_weight;
pub use roof::{DeviceMemory, Work};
pub use rotary::rotary;
pub use rotary_split::rotary_split;
pub use rotary_split_backward::rotary_split_backward;
pub use sample::{SampleOptions, sample, sample_scratch};
pub use scatter_add_rows::scatter_add_rows;
pub use scatter_rows::scatter_rows;
pub use silu_mul::silu_mul;
pub use sum_squares::sum_squares;
pub use swiglu::swiglu;
pub use swiglu_backward::swiglu_backward;
pub use transfer::{flush, read_f32, read_i32, read_i32_now, tensor_f32, tensor_i32, zeros};
pub use upload::Uploads;
