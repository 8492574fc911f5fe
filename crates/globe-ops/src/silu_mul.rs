//! The gate of SwiGLU.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use globe_shaders::Kernel;

use crate::Result;
use crate::launch::{contiguous, element_groups, launch, output, words};
use crate::shapes::expect;

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait SiluMulOps: Backend {
    /// The body is the oracle; see [`silu_mul`] for shapes.
    fn silu_mul(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let e = Self::float_exp(Self::float_neg(gate.clone()));
        let silu = Self::float_div(gate, Self::float_add_scalar(e, 1.0.into()));
        Self::float_mul(silu, up)
    }
}

#[cfg(feature = "flex")]
impl SiluMulOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: SiluMulOps, C: crate::autodiff::Strategy> SiluMulOps for crate::autodiff::Autodiff<B, C> {}

impl SiluMulOps for CubeBackend {
    fn silu_mul(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let [gate, up] = contiguous([gate, up]);
        let shape = gate.shape();
        let len = shape.num_elements();
        let y = output(&gate, shape, DType::F32);
        let (groups, stride) = element_groups(len);
        launch(Kernel::SiluMul, &[&gate, &up, &y], &words![len, stride], groups);
        y
    }
}

/// `silu(gate) * up` (arXiv 2002.05202). `gate, up: [rows, dim]`, returns `[rows, dim]`.
///
/// # Errors
/// [`crate::Error::Shape`] if the two differ.
pub fn silu_mul(gate: Tensor<2>, up: Tensor<2>) -> Result<Tensor<2>> {
    expect("silu_mul", "up", up.dims(), gate.dims())?;
    Ok(Tensor::from_dispatch(Dispatch::silu_mul(gate.into_dispatch(), up.into_dispatch())))
}
