//! Gradients of query, key and value heads put back into that of their projection.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Int, Tensor};
use globe_shaders::Kernel;

use crate::Result;
use crate::launch::{contiguous, element_groups, launch, output, words};
use crate::rotary::RotaryOps;
use crate::shapes::{expect, supported};

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait RotarySplitBackwardOps: RotaryOps {
    /// The body is the oracle; see [`rotary_split_backward`] for shapes.
    fn rotary_split_backward(
        dq: FloatTensor<Self>,
        dk: FloatTensor<Self>,
        dv: FloatTensor<Self>,
        table: FloatTensor<Self>,
        positions: IntTensor<Self>,
        sections: Vec<usize>,
    ) -> FloatTensor<Self> {
        let [tokens, _, head_dim] = dq.shape().dims();
        let [n_positions, _] = table.shape().dims();
        let half = |from: usize| {
            let columns = (from..from + head_dim / 2).into();
            Self::float_slice(table.clone(), &[(0..n_positions).into(), columns])
        };
        // Turning by the opposite angle: the same cosines, negated sines.
        let sines = Self::float_neg(half(head_dim / 2));
        let back = Self::float_cat(vec![half(0), sines], 1);
        let turn = |x| Self::rotary(x, back.clone(), positions.clone(), sections.clone());
        let flat = |x: FloatTensor<Self>| {
            let width = x.shape().num_elements() / tokens;
            Self::float_reshape(x, [tokens, width].into())
        };
        Self::float_cat(vec![flat(turn(dq)), flat(turn(dk)), flat(dv)], 1)
    }
}

#[cfg(feature = "flex")]
impl RotarySplitBackwardOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: RotarySplitBackwardOps, C: crate::autodiff::Strategy> RotarySplitBackwardOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl RotarySplitBackwardOps for CubeBackend {
    fn rotary_split_backward(
        dq: FloatTensor<Self>,
        dk: FloatTensor<Self>,
        dv: FloatTensor<Self>,
        table: FloatTensor<Self>,
        positions: IntTensor<Self>,
        sections: Vec<usize>,
    ) -> FloatTensor<Self> {
        let [dq, dk, dv, table] = contiguous([dq, dk, dv, table]);
        let [positions] = contiguous([positions]);
        let [tokens, n_heads, head_dim] = dq.shape().dims();
        let [_, n_kv_heads, _] = dk.shape().dims();
        let (half, heads) = (head_dim / 2, n_heads + 2 * n_kv_heads);
        let dqkv = output(&dq, [tokens, heads * head_dim], DType::F32);
        let (groups, stride) = element_groups(tokens * heads * half);
        let section_1 = sections[0] + sections[1];
        let params = words![tokens, n_heads, n_kv_heads, half, sections[0], section_1, stride];
        let tensors = [&dq, &dk, &dv, &table, &positions, &dqkv];
        launch(Kernel::RotarySplitBackward, &tensors, &params, groups);
        dqkv
    }
}

/// Gradient of [`crate::rotary_split()`] by its projection, where every row went to its own slot.
///
/// `dq: [tokens, n_heads, head_dim]`, `dk, dv: [tokens, n_kv_heads, head_dim]`; the rest as in
/// [`crate::rotary()`]. Returns `[tokens, (n_heads + 2 * n_kv_heads) * head_dim]`.
///
/// # Errors
/// [`crate::Error::Shape`] or [`crate::Error::Unsupported`] if sizes do not fit together.
pub fn rotary_split_backward(
    dq: Tensor<3>,
    dk: Tensor<3>,
    dv: Tensor<3>,
    table: &Tensor<2>,
    positions: &Tensor<2, Int>,
    sections: &[usize],
) -> Result<Tensor<2>> {
    let op = "rotary_split_backward";
    let ([tokens, _, head_dim], [_, n_kv_heads, _]) = (dq.dims(), dk.dims());
    let [n_positions, _] = table.dims();
    supported(op, "head_dim", head_dim, "even", head_dim.is_multiple_of(2))?;
    supported(op, "axes", sections.len(), "2 or 3", matches!(sections.len(), 2 | 3))?;
    expect(op, "dk", dk.dims(), [tokens, n_kv_heads, head_dim])?;
    expect(op, "dv", dv.dims(), [tokens, n_kv_heads, head_dim])?;
    expect(op, "sections", [sections.iter().sum()], [head_dim / 2])?;
    expect(op, "table", table.dims(), [n_positions, head_dim])?;
    expect(op, "positions", positions.dims(), [sections.len(), tokens])?;
    let dqkv = Dispatch::rotary_split_backward(
        dq.into_dispatch(),
        dk.into_dispatch(),
        dv.into_dispatch(),
        table.clone().into_dispatch(),
        positions.clone().into_dispatch(),
        sections.to_vec(),
    );
    Ok(Tensor::from_dispatch(dqkv))
}
