//! Residual sum and its root-mean-square norm in one pass.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use globe_shaders::Kernel;

use crate::Result;
use crate::launch::{contiguous, folded_groups, launch, output, words};
use crate::rms_norm::RmsNormOps;
use crate::shapes::expect;

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait AddRmsNormOps: RmsNormOps {
    /// The body is the oracle; see [`add_rms_norm`] for shapes.
    fn add_rms_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let sum = Self::float_add(x, residual);
        (sum.clone(), Self::rms_norm(sum, weight, eps))
    }
}

#[cfg(feature = "flex")]
impl AddRmsNormOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: AddRmsNormOps, C: crate::autodiff::Strategy> AddRmsNormOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl AddRmsNormOps for CubeBackend {
    fn add_rms_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [x, residual, weight] = contiguous([x, residual, weight]);
        let [rows, dim] = x.shape().dims();
        let sum = output(&x, [rows, dim], DType::F32);
        let y = output(&x, [rows, dim], DType::F32);
        let groups = folded_groups(rows as u32);
        let params = words![rows, dim, groups[0], eps];
        launch(Kernel::AddRmsNorm, &[&x, &residual, &weight, &sum, &y], &params, groups);
        (sum, y)
    }
}

/// `sum = x + residual` and `rms_norm(sum)`; returns `(sum, norm)`.
/// `x, residual: [rows, dim]`, `weight: [dim]`.
///
/// # Errors
/// [`crate::Error::Shape`] if `residual` or `weight` does not match `x`.
pub fn add_rms_norm(
    x: Tensor<2>,
    residual: Tensor<2>,
    weight: &Tensor<1>,
    eps: f32,
) -> Result<(Tensor<2>, Tensor<2>)> {
    let [rows, dim] = x.dims();
    expect("add_rms_norm", "residual", residual.dims(), [rows, dim])?;
    expect("add_rms_norm", "weight", weight.dims(), [dim])?;
    let weight = weight.clone().into_dispatch();
    let (sum, y) = Dispatch::add_rms_norm(x.into_dispatch(), residual.into_dispatch(), weight, eps);
    Ok((Tensor::from_dispatch(sum), Tensor::from_dispatch(y)))
}
