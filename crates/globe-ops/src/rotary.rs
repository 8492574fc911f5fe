//! Rotary position embedding, multimodal and two-dimensional.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Int, Tensor};
use globe_shaders::Kernel;

use crate::Result;
use crate::launch::{contiguous, element_groups, launch, output, words};
use crate::shapes::{expect, supported};

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait RotaryOps: Backend {
    /// The body is the oracle; see [`rotary`] for shapes.
    fn rotary(
        x: FloatTensor<Self>,
        table: FloatTensor<Self>,
        positions: IntTensor<Self>,
        sections: Vec<usize>,
    ) -> FloatTensor<Self> {
        let [tokens, heads, dim] = x.shape().dims();
        let half = dim / 2;
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        let mut start = 0;
        for (axis, &width) in sections.iter().enumerate() {
            let row =
                Self::int_slice(positions.clone(), &[(axis..axis + 1).into(), (0..tokens).into()]);
            let angles =
                Self::float_select(table.clone(), 0, Self::int_reshape(row, [tokens].into()));
            let part = |from: usize| {
                let range = (from..from + width).into();
                Self::float_slice(angles.clone(), &[(0..tokens).into(), range])
            };
            cos.push(part(start));
            sin.push(part(half + start));
            start += width;
        }
        let cos = Self::float_reshape(Self::float_cat(cos, 1), [tokens, 1, half].into());
        let sin = Self::float_reshape(Self::float_cat(sin, 1), [tokens, 1, half].into());

        let part = |from: usize| {
            let all = [(0..tokens).into(), (0..heads).into(), (from..from + half).into()];
            Self::float_slice(x.clone(), &all)
        };
        let (a, b) = (part(0), part(half));
        let turned_a = Self::float_sub(
            Self::float_mul(a.clone(), cos.clone()),
            Self::float_mul(b.clone(), sin.clone()),
        );
        let turned_b = Self::float_add(Self::float_mul(b, cos), Self::float_mul(a, sin));
        Self::float_cat(vec![turned_a, turned_b], 2)
    }
}

#[cfg(feature = "flex")]
impl RotaryOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: RotaryOps, C: crate::autodiff::Strategy> RotaryOps for crate::autodiff::Autodiff<B, C> {}

impl RotaryOps for CubeBackend {
    fn rotary(
        x: FloatTensor<Self>,
        table: FloatTensor<Self>,
        positions: IntTensor<Self>,
        sections: Vec<usize>,
    ) -> FloatTensor<Self> {
        let [x, table] = contiguous([x, table]);
        let [positions] = contiguous([positions]);
        let [tokens, heads, dim] = x.shape().dims();
        let half = dim / 2;
        let y = output(&x, [tokens, heads, dim], DType::F32);
        let (groups, stride) = element_groups(tokens * heads * half);
        // Where axes 1 and 2 begin; with two axes the third begins past the end.
        let section_1 = sections[0] + sections[1];
        let params = words![tokens, heads, half, sections[0], section_1, stride];
        launch(Kernel::Rotary, &[&x, &table, &positions, &y], &params, groups);
        y
    }
}

/// Turns pair `(i, i + half)` of every head by the angle of frequency `i` at the position of that
/// frequency's axis (arXiv 2104.09864; axes as in Qwen2-VL, arXiv 2409.12191).
///
/// `x: [tokens, n_heads, 2 * half]`, `table: [n_positions, 2 * half]` with `half` cosines then
/// `half` sines, `positions: [axes, tokens]` within the table, `sections`: frequencies per axis,
/// two or three axes that sum to `half`. Returns the shape of `x`.
///
/// # Errors
/// [`crate::Error::Shape`] or [`crate::Error::Unsupported`] if sizes do not fit together.
pub fn rotary(
    x: Tensor<3>,
    table: &Tensor<2>,
    positions: Tensor<2, Int>,
    sections: &[usize],
) -> Result<Tensor<3>> {
    let [tokens, _, dim] = x.dims();
    let [n_positions, _] = table.dims();
    supported("rotary", "head_dim", dim, "even", dim % 2 == 0)?;
    supported("rotary", "axes", sections.len(), "2 or 3", matches!(sections.len(), 2 | 3))?;
    expect("rotary", "sections", [sections.iter().sum()], [dim / 2])?;
    expect("rotary", "table", table.dims(), [n_positions, dim])?;
    expect("rotary", "positions", positions.dims(), [sections.len(), tokens])?;
    let table = table.clone().into_dispatch();
    let y =
        Dispatch::rotary(x.into_dispatch(), table, positions.into_dispatch(), sections.to_vec());
    Ok(Tensor::from_dispatch(y))
}
