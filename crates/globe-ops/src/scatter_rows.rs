//! Rows written into a larger buffer by index: the cache write, image features into the prompt.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{IndexingUpdateOp, Int, Tensor};
use globe_shaders::Kernel;

use crate::Result;
use crate::launch::{contiguous, element_groups, launch, words};
use crate::shapes::expect;

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait ScatterRowsOps: Backend {
    /// The body is the oracle; see [`scatter_rows`] for shapes.
    fn scatter_rows(
        dest: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        slots: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::float_select_assign(dest, 0, slots, rows, IndexingUpdateOp::Assign)
    }
}

#[cfg(feature = "flex")]
impl ScatterRowsOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: ScatterRowsOps, C: crate::autodiff::Strategy> ScatterRowsOps
    for crate::autodiff::Autodiff<B, C>
{
    /// Burn differentiates only the adding form, so the old rows are taken away first.
    fn scatter_rows(
        dest: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        slots: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        use burn::backend::ops::FloatTensorOps;
        let old = Self::float_select(dest.clone(), 0, slots.clone());
        let change = Self::float_sub(rows, old);
        Self::float_select_assign(dest, 0, slots, change, IndexingUpdateOp::Add)
    }
}

impl ScatterRowsOps for CubeBackend {
    fn scatter_rows(
        dest: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        slots: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let [rows, slots] = contiguous([rows, slots]);
        let [dest_rows, _] = dest.shape().dims();
        let [n_rows, dim] = rows.shape().dims();
        let (groups, stride) = element_groups(n_rows * dim);
        let params = words![n_rows, dim, dest_rows, stride];
        launch(Kernel::ScatterRows, &[&rows, &slots, &dest], &params, groups);
        dest
    }
}

/// `dest[slots[row]] = rows[row]`. `dest: [dest_rows, dim]`, `rows: [n_rows, dim]`,
/// `slots: [n_rows]`, distinct and within `dest`; returns `dest`.
///
/// On the GPU the buffer of `dest` itself changes, and so does every clone of it: a cache must
/// not copy itself for each token. Use the returned tensor and keep no other.
///
/// # Errors
/// [`crate::Error::Shape`] if `rows` or `slots` do not match.
pub fn scatter_rows(dest: Tensor<2>, rows: Tensor<2>, slots: Tensor<1, Int>) -> Result<Tensor<2>> {
    let [n_rows, dim] = rows.dims();
    let [dest_rows, _] = dest.dims();
    expect("scatter_rows", "dest", dest.dims(), [dest_rows, dim])?;
    expect("scatter_rows", "slots", slots.dims(), [n_rows])?;
    let (dest, rows, slots) = (dest.into_dispatch(), rows.into_dispatch(), slots.into_dispatch());
    Ok(Tensor::from_dispatch(Dispatch::scatter_rows(dest, rows, slots)))
}
