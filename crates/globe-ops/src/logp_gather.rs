//! Log-probabilities of chosen tokens, without keeping those of all others.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Int, Tensor};
use globe_shaders::{Kernel, Program};

use crate::Result;
use crate::launch::{contiguous, folded_groups, launch, output, reduce, words};
use crate::shapes::{expect, supported};

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait LogpGatherOps: Backend {
    /// The body is the oracle; see [`logp_gather`] for shapes.
    fn logp_gather(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        temperature: f32,
    ) -> FloatTensor<Self> {
        let [rows, _] = logits.shape().dims();
        let logits = Self::float_mul_scalar(logits, (1.0 / temperature).into());
        // The maximum only keeps exp in range, so it takes no part in the gradient.
        let highest = Self::float_max_dim(Self::float_detach(logits.clone()), 1);
        let moved = Self::float_sub(logits.clone(), highest.clone());
        let weights = Self::float_exp(moved.clone());
        let sum = Self::float_sum_dim(weights.clone(), 1);
        let lse = Self::float_add(highest, Self::float_log(sum.clone()));
        let chosen = Self::float_gather(1, logits, Self::int_reshape(targets, [rows, 1].into()));
        let logp = Self::float_sub(chosen, lse.clone());
        let mean = Self::float_sum_dim(Self::float_mul(weights, moved), 1);
        let mean = Self::float_div(mean, sum.clone());
        let entropy = Self::float_sub(Self::float_log(sum), mean);
        Self::float_cat(vec![logp, entropy, lse], 1)
    }
}

#[cfg(feature = "flex")]
impl LogpGatherOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: LogpGatherOps, C: crate::autodiff::Strategy> LogpGatherOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl LogpGatherOps for CubeBackend {
    fn logp_gather(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        temperature: f32,
    ) -> FloatTensor<Self> {
        let ([logits], [targets]) = (contiguous([logits]), contiguous([targets]));
        let [rows, vocab] = logits.shape().dims();
        let stats = output(&logits, [rows, 3], DType::F32);
        let groups = folded_groups(rows as u32);
        let params = words![rows, vocab, groups[0], 1.0 / temperature];
        let program = Program { reduce: reduce(&logits), ..Kernel::LogpGather.into() };
        launch(program, &[&logits, &targets, &stats], &params, groups);
        stats
    }
}

/// For each row the log-probability of its target under `softmax(logits / temperature)`, the
/// entropy of that distribution in nats, and its log-sum-exp.
/// `logits: [rows, vocab]`, `targets: [rows]`, below `vocab`; returns `[rows, 3]`.
///
/// # Errors
/// [`crate::Error::Shape`] if `targets` does not match, [`crate::Error::Unsupported`] for a
/// temperature that is not positive, in thousandths.
pub fn logp_gather(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    temperature: f32,
) -> Result<Tensor<2>> {
    let (op, [rows, _]) = ("logp_gather", logits.dims());
    expect(op, "targets", targets.dims(), [rows])?;
    check_temperature(op, temperature)?;
    let (logits, targets) = (logits.into_dispatch(), targets.into_dispatch());
    Ok(Tensor::from_dispatch(Dispatch::logp_gather(logits, targets, temperature)))
}

/// Errors unless the temperature and what divides by it are positive numbers.
pub(crate) fn check_temperature(op: &'static str, temperature: f32) -> Result<()> {
    let usable = temperature.is_normal() && temperature > 0.0 && (1.0 / temperature).is_finite();
    let thousandths = (1000.0 * temperature) as usize;
    supported(op, "temperature in thousandths", thousandths, "positive", usable)
}
