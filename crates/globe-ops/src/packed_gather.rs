//! Rows of a packed table by index: the embedding lookup.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Int, Tensor};
use globe_shaders::{Kernel, Program, WeightFormat};

use crate::launch::{contiguous, element_groups, launch, words};
use crate::packed::PackedMatrix;
use crate::unpack::unpack;

/// One part of a table, in numbers.
#[derive(Clone, Debug)]
pub struct GatherPlan {
    format: WeightFormat,
    rows: usize,
    first: usize,
    blocks: usize,
    scale_words: usize,
}

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait PackedGatherOps: Backend {
    /// The body is the oracle; see [`packed_gather`]. Fills the rows of `y` that this part holds.
    fn packed_gather(
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        ids: IntTensor<Self>,
        y: FloatTensor<Self>,
        plan: GatherPlan,
    ) -> FloatTensor<Self> {
        let [rows, dim] = y.shape().dims();
        let device = y.device();
        let store = burn::backend::get_device_settings::<Self>(&device).bool_dtype;
        let table = unpack::<Self>(plan.format, words, scales, plan.rows, plan.blocks);
        let table = Self::float_slice(table, &[(0..plan.rows).into(), (0..dim).into()]);
        let local = Self::int_sub_scalar(ids, (plan.first as i64).into());
        let here = Self::bool_and(
            Self::int_greater_equal_elem(local.clone(), 0.into(), store),
            Self::int_lower_elem(local.clone(), (plan.rows as i64).into(), store),
        );
        let local = Self::int_clamp(local, 0.into(), (plan.rows as i64 - 1).into());
        let found = Self::float_select(table, 0, local);
        let here =
            Self::bool_expand(Self::bool_reshape(here, [rows, 1].into()), [rows, dim].into());
        Self::float_mask_where(y, here, found)
    }
}

#[cfg(feature = "flex")]
impl PackedGatherOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: PackedGatherOps, C: crate::autodiff::Strategy> PackedGatherOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl PackedGatherOps for CubeBackend {
    fn packed_gather(
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        ids: IntTensor<Self>,
        y: FloatTensor<Self>,
        plan: GatherPlan,
    ) -> FloatTensor<Self> {
        let [ids] = contiguous([ids]);
        let [rows, dim] = y.shape().dims();
        let GatherPlan { format, rows: part_rows, first, blocks, scale_words } = plan;
        let (groups, stride) = element_groups(rows * blocks * 8);
        let params = words![rows, blocks, part_rows, scale_words, dim, first, stride];
        let program = Program { weights: Some(format), ..Kernel::PackedGather.into() };
        launch(program, &[&words, &scales, &ids, &y], &params, groups);
        y
    }
}

/// `y[row] = table[ids[row]]`. `table: [table_rows, dim]`, `ids: [rows]` within the table, returns
/// `[rows, dim]`.
pub fn packed_gather(table: &PackedMatrix, ids: Tensor<1, Int>) -> Tensor<2> {
    let ([rows], [_, dim]) = (ids.dims(), table.dims());
    let mut y = Tensor::<2>::empty([rows, dim], &ids.device()).into_dispatch();
    for part in &table.parts {
        let plan = GatherPlan {
            format: table.format,
            rows: part.rows,
            first: part.first,
            blocks: table.blocks(),
            scale_words: table.scale_words(),
        };
        let (words, scales) = (part.words.clone(), part.scales.clone());
        y = Dispatch::packed_gather(
            words.into_dispatch(),
            scales.into_dispatch(),
            ids.clone().into_dispatch(),
            y,
            plan,
        );
    }
    Tensor::from_dispatch(y)
}
