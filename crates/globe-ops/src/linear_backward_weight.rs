//! The gradient of a weight.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use globe_shaders::{Kernel, Reduce};

use crate::Result;
use crate::launch::{contiguous, launch, words};
use crate::reduce::reduce;
use crate::shapes::expect;

/// Outputs and columns per workgroup.
const TILE: u32 = 64;
/// The same of `linear_backward_weight_lanes.wgsl`, for adapters whose subgroups hold exactly eight.
const LANES_TILE: [u32; 2] = [16, 32];

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait LinearBackwardWeightOps: Backend {
    /// The body is the oracle; see [`linear_backward_weight`] for shapes.
    fn linear_backward_weight(
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        dweight: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let sum = Self::float_matmul(Self::float_swap_dims(dy, 0, 1), x);
        Self::float_add(dweight, Self::float_mul_scalar(sum, scale.into()))
    }
}

#[cfg(feature = "flex")]
impl LinearBackwardWeightOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: LinearBackwardWeightOps, C: crate::autodiff::Strategy> LinearBackwardWeightOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl LinearBackwardWeightOps for CubeBackend {
    fn linear_backward_weight(
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        dweight: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let [dy, x] = contiguous([dy, x]);
        let [rows, outputs] = dy.shape().dims();
        let [_, cols] = x.shape().dims();
        let params = words![rows, outputs, cols, scale];
        let (kernel, [height, width]) = match reduce(&x) {
            Reduce::Eight if cols.is_multiple_of(4) => {
                (Kernel::LinearBackwardWeightLanes, LANES_TILE)
            }
            _ => (Kernel::LinearBackwardWeight, [TILE; 2]),
        };
        let groups = [(cols as u32).div_ceil(width), (outputs as u32).div_ceil(height), 1];
        launch(kernel, &[&dy, &x, &dweight], &params, groups);
        dweight
    }
}

/// `into + scale * dy^T x`: the gradient of the weight of `y = x weight^T`, added up.
/// `dy: [rows, outputs]`, `x: [rows, cols]`, `into: [outputs, cols]`; returns `into`.
///
/// On the GPU the buffer of `into` itself changes, and so does every clone of it: a sum over many
/// answers must not copy itself. Use the returned tensor and keep no other.
///
/// # Errors
/// [`crate::Error::Shape`] if sizes do not fit together.
pub fn linear_backward_weight(
    dy: Tensor<2>,
    x: Tensor<2>,
    scale: f32,
    into: Tensor<2>,
) -> Result<Tensor<2>> {
    let op = "linear_backward_weight";
    let ([rows, outputs], [_, cols]) = (dy.dims(), x.dims());
    expect(op, "x", x.dims(), [rows, cols])?;
    expect(op, "into", into.dims(), [outputs, cols])?;
    let (dy, x, into) = (dy.into_dispatch(), x.into_dispatch(), into.into_dispatch());
    Ok(Tensor::from_dispatch(Dispatch::linear_backward_weight(dy, x, into, scale)))
}
