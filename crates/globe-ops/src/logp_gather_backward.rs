//! The gradient of logits from that of log-probabilities.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Int, IntDType, Tensor};
use globe_shaders::Kernel;

use crate::Result;
use crate::launch::{contiguous, element_groups, launch, words};
use crate::logp_gather::{LogpOptions, check_options};
use crate::shapes::expect;

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait LogpGatherBackwardOps: Backend {
    /// The body is the oracle; see [`logp_gather_backward`] for shapes.
    fn logp_gather_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        stats: FloatTensor<Self>,
        dlogp: FloatTensor<Self>,
        options: LogpOptions,
    ) -> FloatTensor<Self> {
        let ([rows, vocab], device) = (logits.shape().dims(), logits.device());
        let LogpOptions { temperature, smoothing } = options;
        let heat = 1.0 / temperature;
        let lse = Self::float_slice(stats, &[(0..rows).into(), (2..3).into()]);
        let logits = Self::float_mul_scalar(logits, heat.into());
        let p = Self::float_exp(Self::float_sub(logits, lse));
        let ids = Self::int_arange(0..vocab as i64, &device, IntDType::I32);
        let ids = Self::int_expand(Self::int_reshape(ids, [1, vocab].into()), [rows, vocab].into());
        let targets = Self::int_reshape(targets, [rows, 1].into());
        let targets = Self::int_expand(targets, [rows, vocab].into());
        let store = burn::backend::get_device_settings::<Self>(&device).bool_dtype;
        let hot = Self::int_equal(ids, targets, store);
        let hot = Self::bool_into_float(hot, burn::tensor::FloatDType::F32);
        let label = Self::float_mul_scalar(hot, (1.0 - smoothing).into());
        let label = Self::float_add_scalar(label, (smoothing / vocab as f32).into());
        let dlogp = Self::float_reshape(dlogp, [rows, 1].into());
        let dlogp = Self::float_mul_scalar(dlogp, heat.into());
        Self::float_mul(Self::float_sub(label, p), dlogp)
    }
}

#[cfg(feature = "flex")]
impl LogpGatherBackwardOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: LogpGatherBackwardOps, C: crate::autodiff::Strategy> LogpGatherBackwardOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl LogpGatherBackwardOps for CubeBackend {
    fn logp_gather_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        stats: FloatTensor<Self>,
        dlogp: FloatTensor<Self>,
        options: LogpOptions,
    ) -> FloatTensor<Self> {
        let [logits, stats, dlogp] = contiguous([logits, stats, dlogp]);
        let [targets] = contiguous([targets]);
        let [rows, vocab] = logits.shape().dims();
        let (groups, stride) = element_groups(rows * vocab);
        let params =
            words![rows * vocab, vocab, stride, 1.0 / options.temperature, options.smoothing];
        let tensors = [&logits, &targets, &stats, &dlogp];
        launch(Kernel::LogpGatherBackward, &tensors, &params, groups);
        logits
    }
}

/// Gradient of `logits: [rows, vocab]` from `dlogp: [rows]`, that of the log-probabilities of
/// `targets: [rows]` by the same `options`; `stats: [rows, 3]` as [`crate::logp_gather()`] gave them.
///
/// On the GPU the buffer of `logits` itself changes, and so does every clone of it.
///
/// # Errors
/// [`crate::Error::Shape`] if sizes do not fit together, [`crate::Error::Unsupported`] for a
/// temperature that is not positive or a smoothing outside 0 .. 1, in thousandths.
pub fn logp_gather_backward(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    stats: Tensor<2>,
    dlogp: Tensor<1>,
    options: impl Into<LogpOptions>,
) -> Result<Tensor<2>> {
    let (op, [rows, _]) = ("logp_gather_backward", logits.dims());
    let options = options.into();
    check_options(op, &options)?;
    expect(op, "targets", targets.dims(), [rows])?;
    expect(op, "stats", stats.dims(), [rows, 3])?;
    expect(op, "dlogp", dlogp.dims(), [rows])?;
    let (logits, targets) = (logits.into_dispatch(), targets.into_dispatch());
    let (stats, dlogp) = (stats.into_dispatch(), dlogp.into_dispatch());
    let dlogits = Dispatch::logp_gather_backward(logits, targets, stats, dlogp, options);
    Ok(Tensor::from_dispatch(dlogits))
}
