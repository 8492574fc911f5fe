//! Index of the largest value of each row.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Int, IntDType, Tensor};
use globe_shaders::Kernel;

use crate::launch::{contiguous, launch, output, words};

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait ArgmaxRowsOps: Backend {
    /// The body is the oracle; see [`argmax`] for shapes.
    fn argmax_rows(x: FloatTensor<Self>) -> IntTensor<Self> {
        let [rows, _] = x.shape().dims();
        Self::int_reshape(Self::float_argmax(x, 1, IntDType::I32), [rows].into())
    }
}

#[cfg(feature = "flex")]
impl ArgmaxRowsOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: ArgmaxRowsOps, C: crate::autodiff::Strategy> ArgmaxRowsOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl ArgmaxRowsOps for CubeBackend {
    fn argmax_rows(x: FloatTensor<Self>) -> IntTensor<Self> {
        let [x] = contiguous([x]);
        let [rows, dim] = x.shape().dims();
        let y = output(&x, [rows], DType::I32);
        launch(Kernel::Argmax, &[&x, &y], &words![dim], [rows as u32, 1, 1]);
        y
    }
}

/// Index of the largest value of each row, the lowest index on a tie.
/// `x: [rows, dim]` with at most 65,535 rows, returns `[rows]`.
pub fn argmax(x: Tensor<2>) -> Tensor<1, Int> {
    Tensor::from_dispatch(Dispatch::argmax_rows(x.into_dispatch()))
}
