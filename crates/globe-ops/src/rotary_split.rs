//! One projection to queries, and to keys and values in their buffers.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Int, Tensor};
use globe_shaders::{Kernel, KvFormat, Program};

use crate::Result;
use crate::kv::kv_format;
use crate::launch::{contiguous, element_groups, launch, output, words};
use crate::rotary::RotaryOps;
use crate::scatter_rows::ScatterRowsOps;
use crate::shapes::{expect, supported};

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait RotarySplitOps: RotaryOps + ScatterRowsOps {
    /// The body is the oracle; see [`rotary_split`]. Returns q, k and v.
    #[allow(clippy::too_many_arguments, reason = "one for each binding of the kernel")]
    fn rotary_split(
        qkv: FloatTensor<Self>,
        table: FloatTensor<Self>,
        positions: IntTensor<Self>,
        slots: IntTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        n_heads: usize,
        sections: Vec<usize>,
        _kv: KvFormat,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [rows, n_kv_heads, head_dim] = k.shape().dims();
        let [tokens, _] = qkv.shape().dims();
        let part = |first: usize, heads: usize| {
            let columns = (first * head_dim..(first + heads) * head_dim).into();
            let part = Self::float_slice(qkv.clone(), &[(0..tokens).into(), columns]);
            Self::float_reshape(part, [tokens, heads, head_dim].into())
        };
        let turn = |x| Self::rotary(x, table.clone(), positions.clone(), sections.clone());
        let width = n_kv_heads * head_dim;
        let write = |buffer, x| {
            let buffer = Self::float_reshape(buffer, [rows, width].into());
            let x = Self::float_reshape(x, [tokens, width].into());
            let buffer = Self::scatter_rows(buffer, x, slots.clone());
            Self::float_reshape(buffer, [rows, n_kv_heads, head_dim].into())
        };
        let q = turn(part(0, n_heads));
        let k = write(k, turn(part(n_heads, n_kv_heads)));
        let v = write(v, part(n_heads + n_kv_heads, n_kv_heads));
        (q, k, v)
    }
}

#[cfg(feature = "flex")]
impl RotarySplitOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: RotarySplitOps, C: crate::autodiff::Strategy> RotarySplitOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl RotarySplitOps for CubeBackend {
    fn rotary_split(
        qkv: FloatTensor<Self>,
        table: FloatTensor<Self>,
        positions: IntTensor<Self>,
        slots: IntTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        n_heads: usize,
        sections: Vec<usize>,
        kv: KvFormat,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [qkv, table] = contiguous([qkv, table]);
        let [positions, slots] = contiguous([positions, slots]);
        let [rows, n_kv_heads, _] = k.shape().dims();
        let [tokens, width] = qkv.shape().dims();
        let heads = n_heads + 2 * n_kv_heads;
        let head_dim = width / heads;
        let half = head_dim / 2;
        let q = output(&qkv, [tokens, n_heads, head_dim], DType::F32);
        let (groups, stride) = element_groups(tokens * heads * kv.words(half));
        let section_1 = sections[0] + sections[1];
        let params =
            words![tokens, n_heads, n_kv_heads, half, sections[0], section_1, rows, stride];
        let tensors = [&qkv, &table, &positions, &slots, &q, &k, &v];
        let program = Program { kv: Some(kv), ..Kernel::RotarySplit.into() };
        launch(program, &tensors, &params, groups);
        (q, k, v)
    }
}

/// Splits `qkv` into heads, turns queries and keys as [`crate::rotary`] does, and writes keys and
/// values to the rows `slots` of `k` and `v`. Returns the queries and both buffers.
///
/// `qkv: [tokens, (n_heads + 2 * n_kv_heads) * head_dim]`, `k, v: [rows, n_kv_heads, head_dim]`,
/// `slots: [tokens]`, distinct and within the buffers; the rest as in [`crate::rotary`]. On an adapter
/// `k` and `v` may be half as wide: two f16 are written into the bits of each number.
///
/// On the GPU the buffers themselves change, and so does every clone of them, as in
/// [`crate::scatter_rows`].
///
/// # Errors
/// [`crate::Error::Shape`] or [`crate::Error::Unsupported`] if sizes do not fit together.
#[allow(clippy::too_many_arguments, reason = "one for each tensor of the kernel")]
pub fn rotary_split(
    qkv: Tensor<2>,
    table: &Tensor<2>,
    positions: &Tensor<2, Int>,
    slots: &Tensor<1, Int>,
    k: Tensor<3>,
    v: Tensor<3>,
    n_heads: usize,
    sections: &[usize],
) -> Result<(Tensor<3>, Tensor<3>, Tensor<3>)> {
    let op = "rotary_split";
    let ([tokens, width], [_, n_kv_heads, _]) = (qkv.dims(), k.dims());
    let head_dim = width / (n_heads + 2 * n_kv_heads).max(1);
    let [n_positions, _] = table.dims();
    supported(op, "head_dim", head_dim, "even", head_dim.is_multiple_of(2))?;
    supported(op, "axes", sections.len(), "2 or 3", matches!(sections.len(), 2 | 3))?;
    expect(op, "qkv", qkv.dims(), [tokens, (n_heads + 2 * n_kv_heads) * head_dim])?;
    let kv = kv_format(op, head_dim, &k, &v)?;
    expect(op, "sections", [sections.iter().sum()], [head_dim / 2])?;
    expect(op, "table", table.dims(), [n_positions, head_dim])?;
    expect(op, "positions", positions.dims(), [sections.len(), tokens])?;
    expect(op, "slots", slots.dims(), [tokens])?;
    let (q, k, v) = Dispatch::rotary_split(
        qkv.into_dispatch(),
        table.clone().into_dispatch(),
        positions.clone().into_dispatch(),
        slots.clone().into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        n_heads,
        sections.to_vec(),
        kv,
    );
    Ok((Tensor::from_dispatch(q), Tensor::from_dispatch(k), Tensor::from_dispatch(v)))
}
