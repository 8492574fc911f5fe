//! The gate of SwiGLU on interleaved columns.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use globe_shaders::Kernel;

use crate::Result;
use crate::launch::{contiguous, element_groups, launch, output, words};
use crate::shapes::supported;

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait SwigluOps: Backend {
    /// The body is the oracle; see [`swiglu`] for shapes.
    fn swiglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [gate, up] = halves::<Self>(x);
        Self::float_mul(Self::float_mul(gate.clone(), Self::sigmoid(gate)), up)
    }
}

/// The even and the odd columns of `x`.
pub(crate) fn halves<B: Backend>(x: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let [rows, width] = x.shape().dims();
    let n = width / 2;
    let pairs = B::float_reshape(x, [rows, n, 2].into());
    [0, 1].map(|i| {
        let all = [(0..rows).into(), (0..n).into(), (i..i + 1).into()];
        B::float_reshape(B::float_slice(pairs.clone(), &all), [rows, n].into())
    })
}

#[cfg(feature = "flex")]
impl SwigluOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: SwigluOps, C: crate::autodiff::Strategy> SwigluOps for crate::autodiff::Autodiff<B, C> {}

impl SwigluOps for CubeBackend {
    fn swiglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x] = contiguous([x]);
        let [rows, width] = x.shape().dims();
        let len = rows * width / 2;
        let y = output(&x, [rows, width / 2], DType::F32);
        let (groups, stride) = element_groups(len);
        launch(Kernel::Swiglu, &[&x, &y], &words![len, stride], groups);
        y
    }
}

/// `silu(gate) * up` (arXiv 2002.05202, eq. 5), where gate and up alternate in the columns of
/// `x: [rows, 2 n]`; returns `[rows, n]`.
///
/// # Errors
/// [`crate::Error::Unsupported`] for an odd number of columns.
pub fn swiglu(x: Tensor<2>) -> Result<Tensor<2>> {
    let [_, width] = x.dims();
    supported("swiglu", "columns", width, "even", width.is_multiple_of(2))?;
    Ok(Tensor::from_dispatch(Dispatch::swiglu(x.into_dispatch())))
}
