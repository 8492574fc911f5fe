//! Sums over rows: the gradient of a bias.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use globe_shaders::Kernel;

use crate::Result;
use crate::launch::{contiguous, launch, words};
use crate::shapes::expect;

/// Columns per workgroup.
const COLS: u32 = 64;

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait ColumnSumsOps: Backend {
    /// The body is the oracle; see [`column_sums`] for shapes.
    fn column_sums(x: FloatTensor<Self>, into: FloatTensor<Self>) -> FloatTensor<Self> {
        let [_, cols] = x.shape().dims();
        Self::float_add(into, Self::float_reshape(Self::float_sum_dim(x, 0), [cols].into()))
    }
}

#[cfg(feature = "flex")]
impl ColumnSumsOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: ColumnSumsOps, C: crate::autodiff::Strategy> ColumnSumsOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl ColumnSumsOps for CubeBackend {
    fn column_sums(x: FloatTensor<Self>, into: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x] = contiguous([x]);
        let [rows, cols] = x.shape().dims();
        let groups = [(cols as u32).div_ceil(COLS), 1, 1];
        launch(Kernel::ColumnSums, &[&x, &into], &words![rows, cols], groups);
        into
    }
}

/// `into + the sum of the rows of x`: the gradient of a bias, added up. `x: [rows, cols]`,
/// `into: [cols]`; returns `into`.
///
/// On the GPU the buffer of `into` itself changes, and so does every clone of it. Use the returned
/// tensor and keep no other.
///
/// # Errors
/// [`crate::Error::Shape`] if `into` has another width.
pub fn column_sums(x: Tensor<2>, into: Tensor<1>) -> Result<Tensor<1>> {
    let [_, cols] = x.dims();
    expect("column_sums", "into", into.dims(), [cols])?;
    Ok(Tensor::from_dispatch(Dispatch::column_sums(x.into_dispatch(), into.into_dispatch())))
}
