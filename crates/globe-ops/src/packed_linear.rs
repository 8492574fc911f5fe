//! Product with a packed matrix, with what stands before and after it in a transformer block.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{FloatDType, Tensor};
use globe_shaders::{Kernel, Norm, Program, WeightFormat};

use crate::device::Variant;
use crate::launch::{contiguous, folded_groups, launch, words};
use crate::packed::{BLOCK, PackedMatrix};
use crate::rms_norm::RmsNormOps;
use crate::shapes::{expect, supported};
use crate::unpack::unpack;
use crate::{Result, rms_norm};

/// Up to this many rows, the answers of a batch, the product is bound by reading the weights. Workgroups that read the
/// same ones follow each other, so that all but the first find them in the cache.
const FEW_ROWS: usize = 32;
/// Up to this many rows are multiplied as integers, each by a workgroup of its own.
const DOT_ROWS: usize = 16;
/// Outputs per workgroup of `packed_linear_lanes.wgsl`.
const LANES_OUTPUTS: u32 = 32;
/// Outputs and rows per workgroup of `packed_linear_many_lanes.wgsl`, and turns that it takes for the rows.
const MANY_OUTPUTS: u32 = 128;
const MANY_ROWS: usize = 16;
const MANY_TURNS: usize = 4;
/// Outputs per workgroup of `packed_linear_dot.wgsl`.
const DOT_OUTPUTS: u32 = 64;
/// Outputs per workgroup of `packed_linear_quad_row.wgsl`.
const QUAD_ROW_OUTPUTS: u32 = 16;
/// Outputs per workgroup of `packed_linear_quads.wgsl`, and its rows where there are more than four.
const QUADS_OUTPUTS: u32 = 32;
const QUADS_ROWS: usize = 8;
/// Outputs for each input up to which a product in subgroups of four takes the norm along: queries, keys and values.
const NORM_OUTPUTS: usize = 4;
/// Outputs per workgroup of `packed_linear_few.wgsl`.
const FEW_OUTPUTS: u32 = 16;
/// Outputs and rows per workgroup of `packed_linear_tile.wgsl`.
const TILE: u32 = 64;

/// What inputs are divided by and weights multiplied by before they are rounded: `stage_f16.wgsl`.
const SHIFT: f32 = 16.0;
/// The largest 16-bit float.
const HIGHEST_F16: f32 = 65_504.0;

const BIAS: u32 = 1;
const NORM: u32 = 2;
const RESIDUAL: u32 = 4;
const SWIGLU: u32 = 8;

/// What is done besides the product.
#[derive(Clone, Default)]
pub struct Fused<'a> {
    /// Weight and epsilon of a root-mean-square norm of the input.
    pub norm: Option<(&'a Tensor<1>, f32)>,
    /// Added to the output, of its shape.
    pub residual: Option<Tensor<2>>,
    /// Outputs are pairs (gate, up) that become `silu(gate) * up`: half as many.
    pub swiglu: bool,
}

/// One part of a matrix and what is done with it, in numbers.
#[derive(Clone, Debug)]
pub struct PackedPlan {
    format: WeightFormat,
    variant: Variant,
    /// Rows of the part.
    rows: usize,
    blocks: usize,
    scale_words: usize,
    /// First output of the part.
    first: usize,
    flags: u32,
    norm_dim: usize,
    eps: f32,
}

/// The op on backend primitives. `bias`, `norm` and `residual` count only if the plan says so.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait PackedLinearOps: RmsNormOps {
    /// The body is the oracle; see [`packed_linear`]. Fills the outputs of one part of `y`.
    #[allow(clippy::too_many_arguments, reason = "one for each binding of the kernel")]
    fn packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        bias: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        y: FloatTensor<Self>,
        plan: PackedPlan,
    ) -> FloatTensor<Self> {
        let has = |flag| plan.flags & flag != 0;
        let [rows, width] = x.shape().dims();
        let part = plan.first..plan.first + plan.rows;
        let mut factor = None;
        let x = match has(NORM) {
            // Rounded before the whole row is divided, as in the kernel.
            true if plan.is_dot(rows) => {
                let (weighted, per_row) = weighted::<Self>(x, norm, &plan);
                factor = Some(per_row);
                weighted
            }
            // Columns that only fill the last block count as zeros, and not in the mean.
            true => {
                let share = (plan.norm_dim as f64 / width as f64).sqrt();
                let eps = plan.eps * (plan.norm_dim as f32 / width as f32);
                let normed = Self::rms_norm(x, norm, eps);
                Self::float_mul_scalar(normed, share.into())
            }
            false => x,
        };
        let mut weight = unpack::<Self>(plan.format, words, scales, plan.rows, plan.blocks);
        let mut x = x;
        if plan.is_tiled(rows) && plan.variant.rounds_tiles() {
            x = rounded::<Self>(x, SHIFT.recip());
            weight = rounded::<Self>(weight, SHIFT);
        } else if plan.is_dot(rows) {
            x = rounded_blocks::<Self>(x);
        }
        let mut out = Self::float_matmul(x, Self::float_swap_dims(weight, 0, 1));
        if let Some(factor) = factor {
            out = Self::float_mul(out, factor);
        }
        if has(BIAS) {
            let bias = Self::float_slice(bias, &[part.clone().into()]);
            out = Self::float_add(out, Self::float_reshape(bias, [1, plan.rows].into()));
        }
        let mut columns = part;
        if has(SWIGLU) {
            let pairs = Self::float_reshape(out, [rows, plan.rows / 2, 2].into());
            let half = |i: usize| {
                let all = [(0..rows).into(), (0..plan.rows / 2).into(), (i..i + 1).into()];
                let half = Self::float_slice(pairs.clone(), &all);
                Self::float_reshape(half, [rows, plan.rows / 2].into())
            };
            let gate = half(0);
            out = Self::float_mul(Self::float_mul(gate.clone(), Self::sigmoid(gate)), half(1));
            columns = columns.start / 2..columns.end / 2;
        }
        let place = [(0..rows).into(), columns.into()];
        if has(RESIDUAL) {
            out = Self::float_add(out, Self::float_slice(residual, &place));
        }
        Self::float_slice_assign(y, &place, out)
    }
}

/// `x * norm`, and what its rows `[rows, 1]` have still to be multiplied by: one over the root of the mean
/// of the squares of `x`.
fn weighted<B: Backend>(
    x: FloatTensor<B>,
    norm: FloatTensor<B>,
    plan: &PackedPlan,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [_, width] = x.shape().dims();
    let squares = B::float_sum_dim(B::float_mul(x.clone(), x.clone()), 1);
    let mean = B::float_div_scalar(squares, (plan.norm_dim as f32).into());
    let root = B::float_sqrt(B::float_add_scalar(mean, plan.eps.into()));
    let x = B::float_mul(x, B::float_reshape(norm, [1, width].into()));
    (x, B::float_recip(root))
}

/// Every block of 32 rounded to 8 bits: to the nearest of 255 multiples of its largest magnitude / 127.
fn rounded_blocks<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let [rows, width] = x.shape().dims();
    let blocks = B::float_reshape(x, [rows * width / BLOCK, BLOCK].into());
    let most = B::float_max_dim(B::float_abs(blocks.clone()), 1);
    let step = B::float_div_scalar(most.clone(), 127.0f32.into());
    // A block of zeros stays one.
    let most = B::float_clamp_min(most, f32::MIN_POSITIVE.into());
    let per_step = B::float_mul_scalar(B::float_recip(most), 127.0f32.into());
    let integers = B::float_round(B::float_mul(blocks, per_step));
    B::float_reshape(B::float_mul(integers, step), [rows, width].into())
}

/// `values * shift` as 16-bit floats, which hold them no more exactly than that.
fn rounded<B: Backend>(values: FloatTensor<B>, shift: f32) -> FloatTensor<B> {
    let values = B::float_mul_scalar(values, shift.into());
    let values = B::float_clamp(values, (-HIGHEST_F16).into(), HIGHEST_F16.into());
    B::float_cast(B::float_cast(values, FloatDType::F16), FloatDType::F32)
}

#[cfg(feature = "flex")]
impl PackedLinearOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: PackedLinearOps, C: crate::autodiff::Strategy> PackedLinearOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl PackedLinearOps for CubeBackend {
    fn packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        bias: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        y: FloatTensor<Self>,
        plan: PackedPlan,
    ) -> FloatTensor<Self> {
        let [x, bias, norm, residual] = contiguous([x, bias, norm, residual]);
        let [rows, _] = x.shape().dims();
        let [_, y_stride] = y.shape().dims();
        let PackedPlan { rows: outputs, blocks, scale_words, first, flags, .. } = plan;
        let params = words![rows, blocks, outputs, scale_words, y_stride, first, flags];
        if plan.is_tiled(rows) {
            let tensors = [&words, &scales, &x, &bias, &residual, &y];
            let (program, tile) = plan.tile_kernel();
            let groups = [(outputs as u32).div_ceil(tile), (rows as u32).div_ceil(tile), 1];
            launch(program, &tensors, &params, groups);
            return y;
        }
        let (kernel, per_group, at_once) = plan.row_kernel(rows);
        let [groups_y, groups_z, _] = folded_groups((outputs as u32).div_ceil(per_group));
        let rest = words![groups_y, plan.norm_dim as f32, plan.eps, MANY_TURNS];
        let params = [&params[..], &rest].concat();
        let is_quads = plan.variant == Variant::Quads;
        let has_norm = flags & NORM != 0;
        let tensors = match (is_quads, has_norm) {
            (true, true) => vec![&words, &scales, &x, &bias, &residual, &y, &norm],
            (true, false) => vec![&words, &scales, &x, &bias, &residual, &y],
            (false, _) => vec![&words, &scales, &x, &bias, &norm, &residual, &y],
        };
        let groups = [(rows as u32).div_ceil(at_once as u32), groups_y, groups_z];
        let team = (kernel == Kernel::PackedLinearFew).then(|| plan.variant.team());
        let is_fixed =
            [Kernel::PackedLinearManyLanes, Kernel::PackedLinearDot, Kernel::PackedLinearQuadRow]
                .contains(&kernel);
        let at_once = (!is_fixed).then_some(at_once);
        let norm = is_quads.then_some(if has_norm { Norm::Rms } else { Norm::None });
        let program = Program { team, norm, ..plan.program(kernel, at_once) };
        launch(program, &tensors, &params, groups);
        y
    }
}

impl PackedPlan {
    fn program(&self, kernel: Kernel, rows: Option<usize>) -> Program {
        Program { weights: Some(self.format), rows, ..kernel.into() }
    }

    /// Whether a tile of many rows is computed together.
    fn is_tiled(&self, rows: usize) -> bool {
        !self.variant.takes_rows(rows)
    }

    /// Kernel for many rows, and its rows and outputs per workgroup.
    fn tile_kernel(&self) -> (Program, u32) {
        if let Variant::Cooperative(fragment) = self.variant {
            let program = self.program(Kernel::PackedLinearCooperative, None);
            return (Program { fragment: Some(fragment), ..program }, 4 * fragment.side());
        }
        let program = self.program(Kernel::PackedLinearTile, None);
        (Program { stage: Some(self.variant.stage()), ..program }, TILE)
    }

    /// Whether the rows are multiplied as integers.
    fn is_dot(&self, rows: usize) -> bool {
        self.variant == Variant::PackedDot && rows <= DOT_ROWS && self.format.is_scaled()
    }

    /// Kernel, outputs per workgroup and rows that share a read of the weights.
    fn row_kernel(&self, rows: usize) -> (Kernel, u32, usize) {
        let at_once = |most| match rows {
            1 => 1,
            2..=4 => 4,
            _ => most,
        };
        match self.variant {
            Variant::PackedDot if self.is_dot(rows) => (Kernel::PackedLinearDot, DOT_OUTPUTS, 1),
            Variant::Lanes if pays_at_once(rows, self.rows) => {
                (Kernel::PackedLinearManyLanes, MANY_OUTPUTS, MANY_ROWS)
            }
            // More rows at once do not fit into the registers of a CPU.
            Variant::Lanes => (Kernel::PackedLinearLanes, LANES_OUTPUTS, at_once(4)),
            Variant::Quads if rows == 1 => (Kernel::PackedLinearQuadRow, QUAD_ROW_OUTPUTS, 1),
            Variant::Quads => (Kernel::PackedLinearQuads, QUADS_OUTPUTS, at_once(QUADS_ROWS)),
            _ if rows > 8 => (Kernel::PackedLinearFew, FEW_OUTPUTS, 16),
            _ => (Kernel::PackedLinearFew, FEW_OUTPUTS, at_once(8)),
        }
    }
}

/// Whether rows and outputs, filled up to groups of 16 and 128 that take 4/5 of the time per product, are done sooner
/// than filled up to groups of 4 and 32.
fn pays_at_once(rows: usize, outputs: usize) -> bool {
    let many = rows.next_multiple_of(MANY_ROWS) * outputs.next_multiple_of(MANY_OUTPUTS as usize);
    let few = rows.next_multiple_of(4) * outputs.next_multiple_of(LANES_OUTPUTS as usize);
    4 * many < 5 * few
}

impl PackedMatrix {
    /// Whether a product of so many rows takes the norm of its input along. Otherwise the norm is a kernel of its own,
    /// which two products of the same input had better share.
    pub fn takes_norm(&self, rows: usize) -> bool {
        let [outputs, inputs] = self.dims();
        match self.variant {
            // There each workgroup loads the norm's weights again, and a load is dear.
            Variant::Quads => rows <= FEW_ROWS && outputs <= NORM_OUTPUTS * inputs,
            variant => variant.takes_rows(rows),
        }
    }
}

impl Variant {
    /// The fewest rows whose products need every kernel that those of long prompts need, except that a norm before
    /// [`Variant::Quads`] is one of its own beyond 32 rows, as it always is before wide products.
    pub fn prompt_rows(self) -> usize {
        match self {
            Self::Lanes => MANY_ROWS,
            Self::Quads => QUADS_ROWS,
            _ => FEW_ROWS + 1,
        }
    }

    /// Whether its kernels walk whole rows, instead of tiles of many.
    fn takes_rows(self, rows: usize) -> bool {
        matches!(self, Self::Lanes | Self::Quads) || rows <= FEW_ROWS
    }
}

/// `norm(x) weight^T + bias`, then SwiGLU and the residual if asked for. Where [`Variant::rounds_tiles`]
/// and there are more than 32 rows, both factors are rounded to 16 bits first; with [`Variant::PackedDot`] and
/// up to 16 rows, each block of 32 inputs to 8 bits. Sums are f32, within a block of integers i32.
///
/// `x: [rows, cols]`, `weight: [outputs, cols]`, `bias: [outputs]`; returns `[rows, outputs]`, or
/// half the outputs with SwiGLU. `x` may be as wide as the blocks of the weight instead.
///
/// # Errors
/// [`crate::Error::Shape`] or [`crate::Error::Unsupported`] if sizes do not fit together.
pub fn packed_linear(
    x: Tensor<2>,
    weight: &PackedMatrix,
    bias: Option<&Tensor<1>>,
    fused: Fused,
) -> Result<Tensor<2>> {
    let ([rows, width], [outputs, cols]) = (x.dims(), weight.dims());
    let padded = weight.blocks() * BLOCK;
    if width != padded {
        expect("packed_linear", "x", x.dims(), [rows, cols])?;
    }
    if let Some(bias) = bias {
        expect("packed_linear", "bias", bias.dims(), [outputs])?;
    }
    let pairs = !fused.swiglu || weight.parts.iter().all(|part| part.rows.is_multiple_of(2));
    supported("packed_linear", "outputs", outputs, "even with SwiGLU", pairs)?;
    let y_width = if fused.swiglu { outputs / 2 } else { outputs };
    if let Some(residual) = &fused.residual {
        expect("packed_linear", "residual", residual.dims(), [rows, y_width])?;
    }
    let mut plan = PackedPlan {
        format: weight.format,
        variant: weight.variant,
        rows: 0,
        blocks: weight.blocks(),
        scale_words: weight.scale_words(),
        first: 0,
        flags: u32::from(bias.is_some()) * BIAS
            + u32::from(fused.residual.is_some()) * RESIDUAL
            + u32::from(fused.swiglu) * SWIGLU,
        norm_dim: width,
        eps: 0.0,
    };
    let [no_bias, no_norm, no_residual] = weight.nothing.clone();
    let (x, norm) = match fused.norm {
        None => (x, no_norm),
        Some((norm, eps)) if !weight.takes_norm(rows) => (rms_norm(x, norm, eps)?, no_norm),
        Some((norm, eps)) => {
            expect("packed_linear", "norm", norm.dims(), [width])?;
            (plan.flags, plan.eps) = (plan.flags | NORM, eps);
            (x, widened(norm.clone(), padded))
        }
    };
    let x = widened(x, padded);
    let bias = bias.cloned().unwrap_or(no_bias);
    let residual = fused.residual.unwrap_or_else(|| no_residual.reshape([1, 4]));
    let mut y = Tensor::<2>::empty([rows, y_width], &x.device()).into_dispatch();
    for part in &weight.parts {
        let plan = PackedPlan { rows: part.rows, first: part.first, ..plan.clone() };
        y = Dispatch::packed_linear(
            x.clone().into_dispatch(),
            part.words.clone().into_dispatch(),
            part.scales.clone().into_dispatch(),
            bias.clone().into_dispatch(),
            norm.clone().into_dispatch(),
            residual.clone().into_dispatch(),
            y,
            plan,
        );
    }
    Ok(Tensor::from_dispatch(y))
}

/// `x` with zeros up to `width` columns. Published models have whole blocks and pass through.
fn widened<const D: usize>(x: Tensor<D>, width: usize) -> Tensor<D> {
    let mut shape = x.dims();
    if shape[D - 1] == width {
        return x;
    }
    shape[D - 1] = width - shape[D - 1];
    let zeros = Tensor::zeros(shape, &x.device());
    Tensor::cat(vec![x, zeros], D - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tests against the oracle in `tests/it/packed_linear.rs` have these sizes, so that they reach both kernels.
    #[test]
    fn lanes_take_sixteen_rows_at_once_where_that_fills_up_little() {
        let kernel = |rows: usize, outputs: usize| {
            let plan = PackedPlan {
                format: WeightFormat::Q8,
                variant: Variant::Lanes,
                rows: outputs,
                blocks: 1,
                scale_words: 1,
                first: 0,
                flags: 0,
                norm_dim: BLOCK,
                eps: 0.0,
            };
            plan.row_kernel(rows).0
        };
        for (rows, outputs) in [(16, 128), (31, 97), (32, 200), (100, 256), (16, 120), (31, 120)] {
            assert_eq!(kernel(rows, outputs), Kernel::PackedLinearManyLanes, "{rows} {outputs}");
        }
        for (rows, outputs) in [(1, 33), (4, 64), (16, 65), (33, 65), (130, 129)] {
            assert_eq!(kernel(rows, outputs), Kernel::PackedLinearLanes, "{rows} {outputs}");
        }
    }
}
