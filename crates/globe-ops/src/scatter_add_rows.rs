//! Rows added to a larger buffer by index: the gradient of the embedding lookup.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{IndexingUpdateOp, Tensor};
use globe_shaders::Kernel;

use crate::launch::{contiguous, element_groups, launch, words};
use crate::shapes::expect;
use crate::{Error, Result, tensor_i32};

/// The op on backend primitives. `slots` are sorted.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait ScatterAddRowsOps: Backend {
    /// The body is the oracle; see [`scatter_add_rows`] for shapes.
    fn scatter_add_rows(
        dest: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        sources: IntTensor<Self>,
        slots: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let rows = Self::float_select(rows, 0, sources);
        Self::float_select_assign(dest, 0, slots, rows, IndexingUpdateOp::Add)
    }
}

#[cfg(feature = "flex")]
impl ScatterAddRowsOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: ScatterAddRowsOps, C: crate::autodiff::Strategy> ScatterAddRowsOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl ScatterAddRowsOps for CubeBackend {
    fn scatter_add_rows(
        dest: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        sources: IntTensor<Self>,
        slots: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let ([rows], [sources, slots]) = (contiguous([rows]), contiguous([sources, slots]));
        let [_, dim] = rows.shape().dims();
        let [n] = slots.shape().dims();
        let (groups, stride) = element_groups(n * dim);
        let tensors = [&rows, &sources, &slots, &dest];
        launch(Kernel::ScatterAddRows, &tensors, &words![n, dim, stride], groups);
        dest
    }
}

/// `dest[slot] += rows[source]` for every `[source, slot]` of `pairs`, in their order where a slot
/// stands more than once. `dest: [dest_rows, dim]`, `rows: [n_rows, dim]`; returns `dest`.
///
/// On the GPU the buffer of `dest` itself changes, and so does every clone of it. Use the returned
/// tensor and keep no other.
///
/// # Errors
/// [`crate::Error::Shape`] if widths differ or a pair lies outside of its tensor.
pub fn scatter_add_rows(
    dest: Tensor<2>,
    rows: Tensor<2>,
    pairs: &[[usize; 2]],
) -> Result<Tensor<2>> {
    let op = "scatter_add_rows";
    let ([n_rows, dim], [dest_rows, _]) = (rows.dims(), dest.dims());
    expect(op, "dest", dest.dims(), [dest_rows, dim])?;
    let outside = |pair: &&[usize; 2]| pair[0] >= n_rows || pair[1] >= dest_rows;
    if let Some(pair) = pairs.iter().find(outside) {
        let (expected, got) = (vec![n_rows, dest_rows], pair.to_vec());
        return Err(Error::Shape { op, what: "pairs", expected, got });
    }
    if pairs.is_empty() {
        return Ok(dest);
    }
    let mut sorted = pairs.to_vec();
    sorted.sort_by_key(|[_, slot]| *slot); // stable: the order within a slot stays
    let device = dest.device();
    let column = |i: usize| {
        let values = sorted.iter().map(|pair| pair[i] as i32).collect();
        tensor_i32(values, [sorted.len()], &device).into_dispatch()
    };
    let (sources, slots) = (column(0), column(1));
    let (dest, rows) = (dest.into_dispatch(), rows.into_dispatch());
    Ok(Tensor::from_dispatch(Dispatch::scatter_add_rows(dest, rows, sources, slots)))
}
