//! Rows of a table by index: the embedding lookup, and reordering.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Int, Tensor};
use globe_shaders::Kernel;

use crate::launch::{contiguous, element_groups, launch, output, words};

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait GatherRowsOps: Backend {
    /// The body is the oracle; see [`gather_rows`] for shapes.
    fn gather_rows(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        Self::float_select(table, 0, ids)
    }
}

#[cfg(feature = "flex")]
impl GatherRowsOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: GatherRowsOps, C: crate::autodiff::Strategy> GatherRowsOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl GatherRowsOps for CubeBackend {
    fn gather_rows(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        let [table, ids] = contiguous([table, ids]);
        let [table_rows, dim] = table.shape().dims();
        let [rows] = ids.shape().dims();
        let y = output(&table, [rows, dim], DType::F32);
        let (groups, stride) = element_groups(rows * dim);
        let params = words![rows, dim, table_rows, stride];
        launch(Kernel::GatherRows, &[&table, &ids, &y], &params, groups);
        y
    }
}

/// `y[row] = table[ids[row]]`. `table: [table_rows, dim]`, `ids: [rows]` within the table,
/// returns `[rows, dim]`.
pub fn gather_rows(table: &Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
    let table = table.clone().into_dispatch();
    Tensor::from_dispatch(Dispatch::gather_rows(table, ids.into_dispatch()))
}
