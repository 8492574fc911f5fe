//! The gradient of the root-mean-square norm by its input.

use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use globe_shaders::{Kernel, Program};

use crate::Result;
use crate::launch::{contiguous, folded_groups, launch, output, words};
use crate::reduce::reduce;
use crate::shapes::expect;

/// The op on backend primitives. `residual` counts only if the flag says so.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait RmsNormBackwardOps: Backend {
    /// The body is the oracle; see [`rms_norm_backward`] for shapes.
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        eps: f32,
        has_residual: bool,
    ) -> FloatTensor<Self> {
        let [_, dim] = x.shape().dims();
        let mean = |t| Self::float_mean_dim(t, 1); // [rows, 1]
        let mean_sq = mean(Self::float_mul(x.clone(), x.clone()));
        let root = Self::float_sqrt(Self::float_add_scalar(mean_sq, eps.into()));
        let r = Self::float_recip(root);
        let g = Self::float_mul(dy, Self::float_reshape(weight, [1, dim].into()));
        let share = mean(Self::float_mul(g.clone(), x.clone()));
        let share = Self::float_mul(Self::float_mul(r.clone(), r.clone()), share);
        let dx = Self::float_mul(r, Self::float_sub(g, Self::float_mul(x, share)));
        if has_residual { Self::float_add(dx, residual) } else { dx }
    }
}

#[cfg(feature = "flex")]
impl RmsNormBackwardOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: RmsNormBackwardOps, C: crate::autodiff::Strategy> RmsNormBackwardOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl RmsNormBackwardOps for CubeBackend {
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        eps: f32,
        has_residual: bool,
    ) -> FloatTensor<Self> {
        let [x, weight, dy, residual] = contiguous([x, weight, dy, residual]);
        let [rows, dim] = x.shape().dims();
        let dx = output(&x, [rows, dim], DType::F32);
        let groups = folded_groups(rows as u32);
        let params = words![rows, dim, groups[0], eps, u32::from(has_residual)];
        let tensors = [&x, &weight, &dy, &residual, &dx];
        let program = Program { reduce: Some(reduce(&x)), ..Kernel::RmsNormBackward.into() };
        launch(program, &tensors, &params, groups);
        dx
    }
}

/// Gradient of [`crate::rms_norm()`] by `x: [rows, dim]`, from that of its result, `dy: [rows, dim]`,
/// and `residual`, of the same shape.
///
/// # Errors
/// [`crate::Error::Shape`] if sizes differ.
pub fn rms_norm_backward(
    x: Tensor<2>,
    weight: &Tensor<1>,
    dy: Tensor<2>,
    eps: f32,
    residual: Option<Tensor<2>>,
) -> Result<Tensor<2>> {
    let op = "rms_norm_backward";
    let [rows, dim] = x.dims();
    expect(op, "weight", weight.dims(), [dim])?;
    expect(op, "dy", dy.dims(), [rows, dim])?;
    if let Some(residual) = &residual {
        expect(op, "residual", residual.dims(), [rows, dim])?;
    }
    let has_residual = residual.is_some();
    // A binding needs a buffer of its own, read or not.
    let residual = residual.unwrap_or_else(|| Tensor::zeros([1, 4], (&x.device(), DType::F32)));
    let weight = weight.clone().into_dispatch();
    let (x, dy, residual) = (x.into_dispatch(), dy.into_dispatch(), residual.into_dispatch());
    let dx = Dispatch::rms_norm_backward(x, weight, dy, residual, eps, has_residual);
    Ok(Tensor::from_dispatch(dx))
}
