//! Root-mean-square norm.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use globe_shaders::{Kernel, Program};

use crate::Result;
use crate::launch::{contiguous, folded_groups, launch, output, words};
use crate::reduce::reduce;
use crate::shapes::expect;

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait RmsNormOps: Backend {
    /// The body is the oracle; see [`rms_norm`] for shapes.
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        let shape = x.shape();
        let [_, dim] = shape.dims();
        let squares = Self::float_mul(x.clone(), x.clone());
        let mean_sq = Self::float_mean_dim(squares, 1); // [rows, 1]
        let scale =
            Self::float_recip(Self::float_sqrt(Self::float_add_scalar(mean_sq, eps.into())));
        let weight = Self::float_reshape(weight, [1, dim].into());
        Self::float_mul(Self::float_mul(x, scale), weight)
    }
}

#[cfg(feature = "flex")]
impl RmsNormOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: RmsNormOps, C: crate::autodiff::Strategy> RmsNormOps for crate::autodiff::Autodiff<B, C> {}

impl RmsNormOps for CubeBackend {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        let [x, weight] = contiguous([x, weight]);
        let [rows, dim] = x.shape().dims();
        let y = output(&x, [rows, dim], DType::F32);
        let groups = folded_groups(rows as u32);
        let params = words![rows, dim, groups[0], eps];
        let program = Program { reduce: Some(reduce(&x)), ..Kernel::RmsNorm.into() };
        launch(program, &[&x, &weight, &y], &params, groups);
        y
    }
}

/// `x / sqrt(mean(x²) + eps) * weight` over the last dimension (arXiv 1910.07467).
/// `x: [rows, dim]`, `weight: [dim]`, returns `[rows, dim]`.
///
/// # Errors
/// [`crate::Error::Shape`] if `weight` does not match `x`.
pub fn rms_norm(x: Tensor<2>, weight: &Tensor<1>, eps: f32) -> Result<Tensor<2>> {
    let [_, dim] = x.dims();
    expect("rms_norm", "weight", weight.dims(), [dim])?;
    let weight = weight.clone().into_dispatch();
    Ok(Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), weight, eps)))
}
