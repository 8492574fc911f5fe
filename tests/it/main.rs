//! One binary for all tests across crates, so that they link once.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod adamw;
mod adamw_8bit;
mod attention;
mod attention_backward;
mod attention_step;
mod autodiff;
mod bad_input;
mod cli;
mod column_sums;
mod convert;
mod export;
mod gather_rows;
mod gelu;
mod gelu_backward;
mod golden;
mod learning;
mod linear;
mod linear_backward_weight;
mod logp_gather;
mod packed_gather;
mod packed_linear;
mod packed_linear_backward;
mod packed_model;
mod rms_norm;
mod rms_norm_backward;
mod rms_norm_backward_weight;
mod rotary;
mod rotary_split;
mod rotary_split_backward;
mod sample;
mod scatter_add_rows;
mod scatter_rows;
mod shapes;
mod silu_mul;
mod swiglu;
mod train_cli;
mod train_packing;
mod train_signals;
mod training;
mod training_full;

/// Element-wise kernels: one rounding per operation, exp within a few units in the last place.
const ELEMENT_TOL: f32 = 2e-6;
/// Sums over up to a few thousand terms in another order.
const SUM_TOL: f32 = 2e-5;

/// Gradient of `sum(f(x) * dy)` by `x`, whose values are `random(.., seed)`, by Burn's tape over the
/// default bodies on the CPU.
fn gradient<const D: usize, const E: usize>(
    shape: [usize; D],
    seed: u64,
    dy: globe_ops::Tensor<E>,
    f: impl Fn(globe_ops::Tensor<D>) -> globe_ops::Tensor<E>,
) -> Vec<f32> {
    let device = globe_tests::oracle().autodiff();
    let x = globe_tests::random_tensor(shape, seed, &device).require_grad();
    let dy = globe_ops::Tensor::from_data(dy.to_data(), &device);
    let tape = (f(x.clone()) * dy).sum().backward();
    globe_tests::values(x.grad(&tape).expect("x takes part"))
}
