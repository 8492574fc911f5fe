//! The gradient of the exact GELU.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use globe_shaders::Kernel;

use crate::Result;
use crate::launch::{contiguous, element_groups, launch, output, words};
use crate::shapes::expect;

/// `1 / sqrt(2 pi)`, the density of the normal distribution at 0.
const DENSITY: f32 = 0.398_942_3;

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait GeluBackwardOps: Backend {
    /// The body is the oracle; see [`gelu_backward`] for shapes.
    fn gelu_backward(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        let scaled = Self::float_mul_scalar(x.clone(), std::f32::consts::FRAC_1_SQRT_2.into());
        let share = Self::float_add_scalar(Self::float_erf(scaled), 1.0.into());
        let share = Self::float_mul_scalar(share, 0.5.into());
        let square = Self::float_mul_scalar(Self::float_mul(x.clone(), x.clone()), (-0.5).into());
        let density = Self::float_mul_scalar(Self::float_exp(square), DENSITY.into());
        Self::float_mul(dy, Self::float_add(share, Self::float_mul(x, density)))
    }
}

#[cfg(feature = "flex")]
impl GeluBackwardOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: GeluBackwardOps, C: crate::autodiff::Strategy> GeluBackwardOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl GeluBackwardOps for CubeBackend {
    fn gelu_backward(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x, dy] = contiguous([x, dy]);
        let shape = x.shape();
        let len = shape.num_elements();
        let dx = output(&x, shape, DType::F32);
        let (groups, stride) = element_groups(len);
        launch(Kernel::GeluBackward, &[&x, &dy, &dx], &words![len, stride], groups);
        dx
    }
}

/// Gradient of [`crate::gelu()`] by `x`, from that of its result, `dy`, of the same shape.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ.
pub fn gelu_backward(x: Tensor<2>, dy: Tensor<2>) -> Result<Tensor<2>> {
    expect("gelu_backward", "dy", dy.dims(), x.dims())?;
    let (x, dy) = (x.into_dispatch(), dy.into_dispatch());
    Ok(Tensor::from_dispatch(Dispatch::gelu_backward(x, dy)))
}
