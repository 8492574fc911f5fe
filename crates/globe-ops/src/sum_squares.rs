//! The sum of all squares of a tensor.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use globe_shaders::{Kernel, Program};

use crate::Result;
use crate::launch::{contiguous, launch, output, words};
use crate::reduce::reduce;

/// Most workgroups of the first stage; the second stage adds their sums in one.
const MAX_GROUPS: usize = 256;
/// Elements per workgroup, at least.
const MIN_SLICE: usize = 4096;

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait SumSquaresOps: Backend {
    /// The body is the oracle; see [`sum_squares`].
    fn sum_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_sum(Self::float_mul(x.clone(), x))
    }
}

#[cfg(feature = "flex")]
impl SumSquaresOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: SumSquaresOps, C: crate::autodiff::Strategy> SumSquaresOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl SumSquaresOps for CubeBackend {
    fn sum_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x] = contiguous([x]);
        let len = x.shape().num_elements();
        let slice = len.div_ceil(MAX_GROUPS).max(MIN_SLICE);
        let groups = len.div_ceil(slice).max(1);
        let partial = output(&x, [groups], DType::F32);
        let program = Program { reduce: Some(reduce(&x)), ..Kernel::SumSquares.into() };
        let params = words![len, slice, 1u32];
        launch(program, &[&x, &partial], &params, [groups as u32, 1, 1]);
        if groups == 1 {
            return partial;
        }
        let sum = output(&x, [1], DType::F32);
        let params = words![groups, groups, 0u32];
        launch(program, &[&partial, &sum], &params, [1, 1, 1]);
        sum
    }
}

/// The sum of squares of `x: [n]`, `[1]`; not finite if any value is not. The order of the sum
/// depends on `n` alone.
///
/// # Errors
/// None now; the signature is that of all ops.
pub fn sum_squares(x: Tensor<1>) -> Result<Tensor<1>> {
    Ok(Tensor::from_dispatch(Dispatch::sum_squares(x.into_dispatch())))
}
