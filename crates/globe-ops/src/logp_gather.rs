//! Log-probabilities of chosen tokens, without keeping those of all others.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Int, Tensor};
use globe_shaders::{Kernel, Program};

use crate::Result;
use crate::launch::{contiguous, folded_groups, launch, output, words};
use crate::reduce::reduce;
use crate::shapes::{expect, supported};

/// Which log-probability of a target is meant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogpOptions {
    /// Logits are divided by it.
    pub temperature: f32,
    /// The share of the label that is spread over the vocabulary: `(1 - smoothing) logp + smoothing * mean_v logp_v`.
    pub smoothing: f32,
}

impl From<f32> for LogpOptions {
    /// Of a temperature, without smoothing.
    fn from(temperature: f32) -> Self {
        Self { temperature, smoothing: 0.0 }
    }
}

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait LogpGatherOps: Backend {
    /// The body is the oracle; see [`logp_gather`] for shapes.
    fn logp_gather(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: LogpOptions,
    ) -> FloatTensor<Self> {
        let [rows, _] = logits.shape().dims();
        let LogpOptions { temperature, smoothing } = options;
        let logits = Self::float_mul_scalar(logits, (1.0 / temperature).into());
        // The maximum only keeps exp in range, so it takes no part in the gradient.
        let highest = Self::float_max_dim(Self::float_detach(logits.clone()), 1);
        let moved = Self::float_sub(logits.clone(), highest.clone());
        let weights = Self::float_exp(moved.clone());
        let sum = Self::float_sum_dim(weights.clone(), 1);
        let lse = Self::float_add(highest, Self::float_log(sum.clone()));
        let targets = Self::int_reshape(targets, [rows, 1].into());
        let chosen = Self::float_gather(1, logits.clone(), targets);
        let mut logp = Self::float_sub(chosen, lse.clone());
        if smoothing > 0.0 {
            let mean = Self::float_sub(Self::float_mean_dim(logits, 1), lse.clone());
            let kept = Self::float_mul_scalar(logp, (1.0 - smoothing).into());
            logp = Self::float_add(kept, Self::float_mul_scalar(mean, smoothing.into()));
        }
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
        options: LogpOptions,
    ) -> FloatTensor<Self> {
        let ([logits], [targets]) = (contiguous([logits]), contiguous([targets]));
        let [rows, vocab] = logits.shape().dims();
        let stats = output(&logits, [rows, 3], DType::F32);
        let groups = folded_groups(rows as u32);
        let params = words![rows, vocab, groups[0], 1.0 / options.temperature, options.smoothing];
        let program = Program { reduce: Some(reduce(&logits)), ..Kernel::LogpGather.into() };
        launch(program, &[&logits, &targets, &stats], &params, groups);
        stats
    }
}

/// For each row the log-probability of its target under `softmax(logits / temperature)`, the
/// entropy of that distribution in nats, and its log-sum-exp. `options`: a temperature, or [`LogpOptions`].
/// `logits: [rows, vocab]`, `targets: [rows]`, below `vocab`; returns `[rows, 3]`.
///
/// # Errors
/// [`crate::Error::Shape`] if `targets` does not match, [`crate::Error::Unsupported`] for a
/// temperature that is not positive or a smoothing outside 0 .. 1, in thousandths.
pub fn logp_gather(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    options: impl Into<LogpOptions>,
) -> Result<Tensor<2>> {
    let (op, [rows, _]) = ("logp_gather", logits.dims());
    let options = options.into();
    expect(op, "targets", targets.dims(), [rows])?;
    check_options(op, &options)?;
    let (logits, targets) = (logits.into_dispatch(), targets.into_dispatch());
    Ok(Tensor::from_dispatch(Dispatch::logp_gather(logits, targets, options)))
}

/// Errors unless the temperature and what divides by it are positive numbers, and the smoothing a share.
pub(crate) fn check_options(op: &'static str, options: &LogpOptions) -> Result<()> {
    let LogpOptions { temperature, smoothing } = *options;
    let usable = temperature.is_normal() && temperature > 0.0 && (1.0 / temperature).is_finite();
    let thousandths = (1000.0 * temperature) as usize;
    supported(op, "temperature in thousandths", thousandths, "positive", usable)?;
    let (thousandths, is_share) = ((1000.0 * smoothing) as usize, (0.0..1.0).contains(&smoothing));
    supported(op, "smoothing in thousandths", thousandths, "from 0 to below 1", is_share)
}
