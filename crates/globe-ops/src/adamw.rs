//! One step of AdamW on the device.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use globe_shaders::Kernel;

use crate::Result;
use crate::launch::{contiguous, element_groups, launch, words};
use crate::shapes::expect;

/// Numbers of one step, the same for all parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the latter.
    pub eps: f64,
    /// Decay of the parameter per unit of learning rate.
    pub weight_decay: f64,
    /// `1 - beta1^t` at step `t`, counted from 1.
    pub correction1: f64,
    /// `1 - beta2^t`.
    pub correction2: f64,
    /// The gradient is multiplied by it first, to clip its norm.
    pub gradient_scale: f64,
}

impl AdamStep {
    /// Rounded once, where torch rounds: gradient scale, decay, 1 - beta1, beta2, 1 - beta2, step
    /// size, root of the second correction, eps.
    pub(crate) fn rounded(&self) -> [f32; 8] {
        let decay = 1.0 - self.lr * self.weight_decay;
        let step_size = self.lr / self.correction1;
        let root = self.correction2.sqrt();
        let keep = 1.0 - self.beta1;
        [self.gradient_scale, decay, keep, self.beta2, 1.0 - self.beta2, step_size, root, self.eps]
            .map(|x| x as f32)
    }
}

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait AdamWOps: Backend {
    /// The body is the oracle; see [`adamw`]. Returns parameter, mean and mean square.
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        mean_sq: FloatTensor<Self>,
        step: AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [scale, decay, keep, beta2, keep_sq, step_size, root, eps] = step.rounded();
        let times = |t, factor: f32| Self::float_mul_scalar(t, factor.into());
        let g = times(gradient, scale);
        let change = times(Self::float_sub(g.clone(), mean.clone()), keep);
        let mean = Self::float_add(mean, change);
        let square = Self::float_mul(times(g.clone(), keep_sq), g);
        let mean_sq = Self::float_add(times(mean_sq, beta2), square);
        let below = Self::float_div_scalar(Self::float_sqrt(mean_sq.clone()), root.into());
        let below = Self::float_add_scalar(below, eps.into());
        let change = times(Self::float_div(mean.clone(), below), step_size);
        (Self::float_sub(times(parameter, decay), change), mean, mean_sq)
    }
}

#[cfg(feature = "flex")]
impl AdamWOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: AdamWOps, C: crate::autodiff::Strategy> AdamWOps for crate::autodiff::Autodiff<B, C> {}

impl AdamWOps for CubeBackend {
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        mean_sq: FloatTensor<Self>,
        step: AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [gradient] = contiguous([gradient]);
        let len = parameter.shape().num_elements();
        let [scale, decay, keep, beta2, keep_sq, step_size, root, eps] = step.rounded();
        let (groups, stride) = element_groups(len);
        let params = words![len, stride, scale, decay, keep, beta2, keep_sq, step_size, root, eps];
        launch(Kernel::Adamw, &[&parameter, &gradient, &mean, &mean_sq], &params, groups);
        (parameter, mean, mean_sq)
    }
}

/// One step of AdamW (arXiv 1711.05101) in torch's order of operations. All tensors are `[n]`;
/// returns parameter, mean of gradients and mean of their squares.
///
/// On the GPU their buffers themselves change, and so does every clone of them: a model that
/// holds the parameter is trained without being told.
///
/// # Errors
/// [`crate::Error::Shape`] if lengths differ.
pub fn adamw(
    parameter: Tensor<1>,
    gradient: Tensor<1>,
    mean: Tensor<1>,
    mean_sq: Tensor<1>,
    step: &AdamStep,
) -> Result<(Tensor<1>, Tensor<1>, Tensor<1>)> {
    let n = parameter.dims();
    expect("adamw", "gradient", gradient.dims(), n)?;
    expect("adamw", "mean", mean.dims(), n)?;
    expect("adamw", "mean_sq", mean_sq.dims(), n)?;
    let (parameter, gradient) = (parameter.into_dispatch(), gradient.into_dispatch());
    let (mean, mean_sq) = (mean.into_dispatch(), mean_sq.into_dispatch());
    let (parameter, mean, mean_sq) = Dispatch::adamw(parameter, gradient, mean, mean_sq, *step);
    let tensor = Tensor::from_dispatch;
    Ok((tensor(parameter), tensor(mean), tensor(mean_sq)))
}
