//! The gradient of the root-mean-square norm by its weight.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use globe_shaders::{Kernel, Program};

use crate::Result;
use crate::column_sums::ColumnSumsOps;
use crate::launch::{contiguous, launch, output, words};
use crate::reduce::reduce;
use crate::shapes::expect;

/// Workgroups, each with a sum of its own.
const MAX_GROUPS: usize = 64;

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait RmsNormBackwardWeightOps: Backend {
    /// The body is the oracle; see [`rms_norm_backward_weight`] for shapes.
    fn rms_norm_backward_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f32,
        into: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let [_, dim] = x.shape().dims();
        let mean_sq = Self::float_mean_dim(Self::float_mul(x.clone(), x.clone()), 1); // [rows, 1]
        let root = Self::float_sqrt(Self::float_add_scalar(mean_sq, eps.into()));
        let terms = Self::float_mul(dy, Self::float_div(x, root));
        Self::float_add(into, Self::float_reshape(Self::float_sum_dim(terms, 0), [dim].into()))
    }
}

#[cfg(feature = "flex")]
impl RmsNormBackwardWeightOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: RmsNormBackwardWeightOps, C: crate::autodiff::Strategy> RmsNormBackwardWeightOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl RmsNormBackwardWeightOps for CubeBackend {
    fn rms_norm_backward_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f32,
        into: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let [x, dy] = contiguous([x, dy]);
        let [rows, dim] = x.shape().dims();
        let n_groups = rows.min(MAX_GROUPS);
        let partial = output(&x, [n_groups, dim], DType::F32);
        let params = words![rows, dim, n_groups, eps];
        let groups = [n_groups as u32, 1, 1];
        let program = Program { reduce: Some(reduce(&x)), ..Kernel::RmsNormBackwardWeight.into() };
        launch(program, &[&x, &dy, &partial], &params, groups);
        Self::column_sums(partial, into)
    }
}

/// `into` and the gradient of [`crate::rms_norm()`] by its weight, from that of its result.
/// `x, dy: [rows, dim]`, `into: [dim]`; returns `into`.
///
/// On the GPU the buffer of `into` itself changes, and so does every clone of it. Use the returned
/// tensor and keep no other.
///
/// # Errors
/// [`crate::Error::Shape`] if sizes differ or there is no row.
pub fn rms_norm_backward_weight(
    x: Tensor<2>,
    dy: Tensor<2>,
    eps: f32,
    into: Tensor<1>,
) -> Result<Tensor<1>> {
    let op = "rms_norm_backward_weight";
    let [rows, dim] = x.dims();
    expect(op, "x", x.dims(), [rows.max(1), dim])?;
    expect(op, "dy", dy.dims(), [rows, dim])?;
    expect(op, "into", into.dims(), [dim])?;
    let (x, dy, into) = (x.into_dispatch(), dy.into_dispatch(), into.into_dispatch());
    Ok(Tensor::from_dispatch(Dispatch::rms_norm_backward_weight(x, dy, eps, into)))
}
