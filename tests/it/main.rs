//! One binary for all tests across crates, so that they link once.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod attention;
mod attention_step;
mod attention_backward;
mod autodiff;
mod bad_input;
mod cli;
mod convert;
mod gather_rows;
mod gelu;
mod golden;
mod linear;
mod packed_gather;
mod packed_linear;
mod packed_model;
mod rms_norm;
mod rotary;
mod rotary_split;
mod sample;
mod scatter_rows;
mod shapes;
mod silu_mul;

/// Element-wise kernels: one rounding per operation, exp within a few units in the last place.
const ELEMENT_TOL: f32 = 2e-6;
/// Sums over up to a few thousand terms in another order.
const SUM_TOL: f32 = 2e-5;
