//! Matrix product with bias.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use globe_shaders::Kernel;

use crate::Result;
use crate::launch::{contiguous, folded_groups, launch, output, words};
use crate::shapes::expect;

/// Up to this many rows the product is bound by reading the weights, and a tile would idle.
const FEW_ROWS: usize = 8;
/// Outputs per workgroup of `linear_row.wgsl`.
const ROW_OUTPUTS: u32 = 32;
/// Outputs and rows per workgroup of `linear.wgsl`.
const TILE: u32 = 64;

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait LinearOps: Backend {
    /// The body is the oracle; see [`linear`] for shapes.
    fn linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let [outputs] = bias.shape().dims();
        let y = Self::float_matmul(x, Self::float_swap_dims(weight, 0, 1));
        Self::float_add(y, Self::float_reshape(bias, [1, outputs].into()))
    }
}

#[cfg(feature = "flex")]
impl LinearOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: LinearOps, C: crate::autodiff::Strategy> LinearOps for crate::autodiff::Autodiff<B, C> {}

impl LinearOps for CubeBackend {
    fn linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let [x, weight, bias] = contiguous([x, weight, bias]);
        let [rows, inputs] = x.shape().dims();
        let [outputs] = bias.shape().dims();
        let y = output(&x, [rows, outputs], DType::F32);
        let tensors = [&x, &weight, &bias, &y];
        if rows <= FEW_ROWS {
            let [groups_x, groups_z, _] = folded_groups((outputs as u32).div_ceil(ROW_OUTPUTS));
            let groups = [groups_x, rows as u32, groups_z];
            launch(Kernel::LinearRow, &tensors, &words![outputs, inputs, groups_x], groups);
        } else {
            let groups = [(outputs as u32).div_ceil(TILE), (rows as u32).div_ceil(TILE), 1];
            launch(Kernel::Linear, &tensors, &words![rows, outputs, inputs], groups);
        }
        y
    }
}

/// `x weight^T + bias`. `x: [rows, inputs]`, `weight: [outputs, inputs]`, `bias: [outputs]`,
/// returns `[rows, outputs]`.
///
/// # Errors
/// [`crate::Error::Shape`] if the sizes do not fit together.
pub fn linear(x: Tensor<2>, weight: &Tensor<2>, bias: &Tensor<1>) -> Result<Tensor<2>> {
    let [rows, _] = x.dims();
    let [outputs, inputs] = weight.dims();
    expect("linear", "x", x.dims(), [rows, inputs])?;
    expect("linear", "bias", bias.dims(), [outputs])?;
    let (weight, bias) = (weight.clone().into_dispatch(), bias.clone().into_dispatch());
    Ok(Tensor::from_dispatch(Dispatch::linear(x.into_dispatch(), weight, bias)))
}
