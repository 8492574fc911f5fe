//! Exact GELU.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use globe_shaders::Kernel;

use crate::launch::{contiguous, element_groups, launch, output, words};

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait GeluOps: Backend {
    /// The body is the oracle; see [`gelu`] for shapes.
    fn gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let scaled = Self::float_mul_scalar(x.clone(), std::f32::consts::FRAC_1_SQRT_2.into());
        let gate = Self::float_add_scalar(Self::float_erf(scaled), 1.0.into());
        Self::float_mul(Self::float_mul_scalar(x, 0.5.into()), gate)
    }
}

#[cfg(feature = "flex")]
impl GeluOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: GeluOps, C: crate::autodiff::Strategy> GeluOps for crate::autodiff::Autodiff<B, C> {}

impl GeluOps for CubeBackend {
    fn gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x] = contiguous([x]);
        let shape = x.shape();
        let len = shape.num_elements();
        let y = output(&x, shape, DType::F32);
        let (groups, stride) = element_groups(len);
        launch(Kernel::Gelu, &[&x, &y], &words![len, stride], groups);
        y
    }
}

/// `x * (1 + erf(x / sqrt(2))) / 2` (arXiv 1606.08415), element by element.
pub fn gelu(x: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::gelu(x.into_dispatch()))
}
