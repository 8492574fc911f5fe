//! The gradient of the gate of SwiGLU.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use globe_shaders::Kernel;

use crate::Result;
use crate::launch::{contiguous, element_groups, launch, output, words};
use crate::shapes::expect;
use crate::swiglu::halves;

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait SwigluBackwardOps: Backend {
    /// The body is the oracle; see [`swiglu_backward`] for shapes.
    fn swiglu_backward(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        let [rows, n] = dy.shape().dims();
        let [gate, up] = halves::<Self>(x);
        let s = Self::sigmoid(gate.clone());
        let silu = Self::float_mul(gate, s.clone());
        // silu' = s + silu * (1 - s)
        let rest = Self::float_add_scalar(Self::float_neg(s.clone()), 1.0.into());
        let slope = Self::float_add(s, Self::float_mul(silu.clone(), rest));
        let dgate = Self::float_mul(Self::float_mul(dy.clone(), up), slope);
        let dup = Self::float_mul(dy, silu);
        let column = |t| Self::float_reshape(t, [rows, n, 1].into());
        let pairs = Self::float_cat(vec![column(dgate), column(dup)], 2);
        Self::float_reshape(pairs, [rows, 2 * n].into())
    }
}

#[cfg(feature = "flex")]
impl SwigluBackwardOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: SwigluBackwardOps, C: crate::autodiff::Strategy> SwigluBackwardOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl SwigluBackwardOps for CubeBackend {
    fn swiglu_backward(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x, dy] = contiguous([x, dy]);
        let len = dy.shape().num_elements();
        let dx = output(&x, x.shape(), DType::F32);
        let (groups, stride) = element_groups(len);
        launch(Kernel::SwigluBackward, &[&x, &dy, &dx], &words![len, stride], groups);
        dx
    }
}

/// Gradient of [`crate::swiglu()`] by `x: [rows, 2 n]`, from that of its result, `dy: [rows, n]`.
///
/// # Errors
/// [`crate::Error::Shape`] if `dy` does not match `x`.
pub fn swiglu_backward(x: Tensor<2>, dy: Tensor<2>) -> Result<Tensor<2>> {
    let [rows, n] = dy.dims();
    expect("swiglu_backward", "x", x.dims(), [rows, 2 * n])?;
    let (x, dy) = (x.into_dispatch(), dy.into_dispatch());
    Ok(Tensor::from_dispatch(Dispatch::swiglu_backward(x, dy)))
}
