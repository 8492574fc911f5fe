//! The gradient of the input of a product with a packed matrix.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use globe_shaders::{Kernel, Program, WeightFormat};

use crate::Result;
use crate::device::Variant;
use crate::launch::{contiguous, launch, words};
use crate::packed::{BLOCK, PackedMatrix};
use crate::shapes::expect;
use crate::unpack::unpack;

/// Rows and inputs per workgroup of `packed_linear_backward.wgsl`.
const TILE: u32 = 64;
/// Rows per workgroup of `packed_linear_backward_lanes.wgsl`, which takes one block of inputs.
const LANES_ROWS: u32 = 64;

const RESIDUAL: u32 = 4;
const ADD: u32 = 16;

/// One part of a matrix, in numbers.
#[derive(Clone, Debug)]
pub struct BackwardPlan {
    format: WeightFormat,
    variant: Variant,
    /// Rows of the part, and its first output.
    outputs: usize,
    first: usize,
    blocks: usize,
    scale_words: usize,
    flags: u32,
}

/// The op on backend primitives. `residual` counts only if the plan says so.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait PackedLinearBackwardOps: Backend {
    /// The body is the oracle; see [`packed_linear_backward`]. Adds what one part gives to `dx`.
    fn packed_linear_backward(
        dy: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        residual: FloatTensor<Self>,
        dx: FloatTensor<Self>,
        plan: BackwardPlan,
    ) -> FloatTensor<Self> {
        let [rows, _] = dy.shape().dims();
        let [_, cols] = dx.shape().dims();
        let part = [(0..rows).into(), (plan.first..plan.first + plan.outputs).into()];
        let weight = unpack::<Self>(plan.format, words, scales, plan.outputs, plan.blocks);
        let sum = Self::float_matmul(Self::float_slice(dy, &part), weight);
        let mut sum = Self::float_slice(sum, &[(0..rows).into(), (0..cols).into()]);
        if plan.flags & RESIDUAL != 0 {
            sum = Self::float_add(sum, residual);
        }
        if plan.flags & ADD != 0 { Self::float_add(sum, dx) } else { sum }
    }
}

#[cfg(feature = "flex")]
impl PackedLinearBackwardOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: PackedLinearBackwardOps, C: crate::autodiff::Strategy> PackedLinearBackwardOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl PackedLinearBackwardOps for CubeBackend {
    fn packed_linear_backward(
        dy: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        residual: FloatTensor<Self>,
        dx: FloatTensor<Self>,
        plan: BackwardPlan,
    ) -> FloatTensor<Self> {
        let [dy, residual] = contiguous([dy, residual]);
        let [rows, dy_stride] = dy.shape().dims();
        let [_, cols] = dx.shape().dims();
        let BackwardPlan { format, outputs, first, blocks, scale_words, flags, .. } = plan;
        let params = words![rows, blocks, outputs, scale_words, cols, dy_stride, first, flags];
        let inputs = (blocks * BLOCK) as u32;
        let (kernel, groups) = match plan.variant {
            Variant::Lanes if cols.is_multiple_of(4) => {
                let groups = [blocks as u32, (rows as u32).div_ceil(LANES_ROWS), 1];
                (Kernel::PackedLinearBackwardLanes, groups)
            }
            _ => {
                let groups = [inputs.div_ceil(TILE), (rows as u32).div_ceil(TILE), 1];
                (Kernel::PackedLinearBackward, groups)
            }
        };
        let program = Program { weights: Some(format), ..kernel.into() };
        launch(program, &[&words, &scales, &dy, &residual, &dx], &params, groups);
        dx
    }
}

/// `dy weight + residual`: the gradient of [`crate::packed_linear()`] by its input.
/// `dy: [rows, outputs]`, `weight: [outputs, cols]`, `residual: [rows, cols]`; returns
/// `[rows, cols]`. No plain copy of the weight exists at any time.
///
/// # Errors
/// [`crate::Error::Shape`] if sizes do not fit together.
pub fn packed_linear_backward(
    dy: Tensor<2>,
    weight: &PackedMatrix,
    residual: Option<Tensor<2>>,
) -> Result<Tensor<2>> {
    let op = "packed_linear_backward";
    let ([rows, _], [outputs, cols]) = (dy.dims(), weight.dims());
    expect(op, "dy", dy.dims(), [rows, outputs])?;
    if let Some(residual) = &residual {
        expect(op, "residual", residual.dims(), [rows, cols])?;
    }
    let has_residual = residual.is_some();
    let [nothing, _, _] = weight.nothing.clone();
    let residual = residual.unwrap_or_else(|| nothing.reshape([1, 4])).into_dispatch();
    let device = (&dy.device(), DType::F32);
    let mut dx = Tensor::<2>::empty([rows, cols], device).into_dispatch();
    for (i, part) in weight.parts.iter().enumerate() {
        let flags = match i {
            0 => u32::from(has_residual) * RESIDUAL,
            _ => ADD,
        };
        let plan = BackwardPlan {
            format: weight.format,
            variant: weight.variant,
            outputs: part.rows,
            first: part.first,
            blocks: weight.blocks(),
            scale_words: weight.scale_words(),
            flags,
        };
        dx = Dispatch::packed_linear_backward(
            dy.clone().into_dispatch(),
            part.words.clone().into_dispatch(),
            part.scales.clone().into_dispatch(),
            residual.clone(),
            dx,
            plan,
        );
    }
    Ok(Tensor::from_dispatch(dx))
}
