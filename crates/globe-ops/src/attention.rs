//! Softmax attention, each query over its own range of keys.

use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension, get_device_settings};
use burn::tensor::{DType, FloatDType, Int, IntDType, Tensor};
use globe_shaders::Kernel;

use crate::Result;
use crate::launch::{contiguous, launch, output, words};
use crate::shapes::{expect, supported};

/// The widest head that fits the workgroup memory every adapter has.
pub const MAX_HEAD_DIM: usize = 128;
/// Scores that the oracle holds at once, 64 MiB of them: a large photo has gigabytes in all.
const MAX_SCORES: usize = 1 << 24;
/// Query rows per workgroup.
const ROWS: u32 = 16;

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait AttentionOps: Backend {
    /// The body is the oracle; see [`attention`] for shapes. It does store scores, though never
    /// more than [`MAX_SCORES`] of them.
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        ranges: IntTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let [tokens, n_heads, head_dim] = q.shape().dims();
        let [keys, _, _] = k.shape().dims();
        let k = Self::float_permute(k, &[1, 2, 0]); // [n_kv_heads, head_dim, keys]
        let v = Self::float_permute(v, &[1, 0, 2]); // [n_kv_heads, keys, head_dim]
        let step = (MAX_SCORES / (n_heads * keys).max(1)).clamp(1, tokens.max(1));
        let parts = (0..tokens).step_by(step).map(|start| {
            let rows = start..tokens.min(start + step);
            let all = [rows.clone().into(), (0..n_heads).into(), (0..head_dim).into()];
            let q = Self::float_slice(q.clone(), &all);
            let ranges = Self::int_slice(ranges.clone(), &[rows.clone().into(), (0..2).into()]);
            let visible = key_mask::<Self>(ranges, rows.len(), keys);
            attend::<Self>(q, k.clone(), v.clone(), visible, scale)
        });
        Self::float_cat(parts.collect(), 0)
    }
}

/// Attention with all scores at once. `q: [tokens, n_heads, head_dim]`,
/// `k: [n_kv_heads, head_dim, keys]`, `v: [n_kv_heads, keys, head_dim]`, `visible: [tokens, keys]`.
pub(crate) fn attend<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    visible: BoolTensor<B>,
    scale: f32,
) -> FloatTensor<B> {
    let [tokens, n_heads, head_dim] = q.shape().dims();
    let [n_kv_heads, _, keys] = k.shape().dims();
    let group = n_heads / n_kv_heads;
    let rows = tokens * group;

    // [n_kv_heads, tokens * group, head_dim]: the heads that share keys are rows of one product.
    let q = B::float_reshape(q, [tokens, n_kv_heads, group, head_dim].into());
    let q = B::float_permute(q, &[1, 0, 2, 3]);
    let q = B::float_reshape(q, [n_kv_heads, rows, head_dim].into());
    let scores = B::float_mul_scalar(B::float_matmul(q, k), scale.into());

    let visible = B::bool_reshape(visible, [tokens, 1, keys].into());
    let visible = B::bool_expand(visible, [tokens, group, keys].into());
    let visible = B::bool_reshape(visible, [1, rows, keys].into());
    let visible = B::bool_expand(visible, [n_kv_heads, rows, keys].into());
    let scores = B::float_mask_fill(scores, B::bool_not(visible.clone()), (-1e30).into());

    // The maximum only keeps exp in range, so it takes no part in the gradient.
    let highest = B::float_max_dim(B::float_detach(scores.clone()), 2);
    let weights = B::float_exp(B::float_sub(scores, highest));
    let weights = B::float_mul(weights, B::bool_into_float(visible, FloatDType::F32));
    let total = B::float_clamp_min(B::float_sum_dim(weights.clone(), 2), 1e-30.into());
    let y = B::float_div(B::float_matmul(weights, v), total);

    let y = B::float_reshape(y, [n_kv_heads, tokens, group, head_dim].into());
    let y = B::float_permute(y, &[1, 0, 2, 3]);
    B::float_reshape(y, [tokens, n_heads, head_dim].into())
}

/// Which of `keys` each token may read, `[tokens, keys]`.
fn key_mask<B: Backend>(ranges: IntTensor<B>, tokens: usize, keys: usize) -> BoolTensor<B> {
    let device = ranges.device();
    let store = get_device_settings::<B>(&device).bool_dtype;
    let full = |x| B::int_expand(x, [tokens, keys].into());
    let bound =
        |i: usize| full(B::int_slice(ranges.clone(), &[(0..tokens).into(), (i..i + 1).into()]));
    let key = B::int_arange(0..keys as i64, &device, IntDType::I32);
    let key = full(B::int_reshape(key, [1, keys].into()));
    B::bool_and(
        B::int_greater_equal(key.clone(), bound(0), store),
        B::int_lower(key, bound(1), store),
    )
}

#[cfg(feature = "flex")]
impl AttentionOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: AttentionOps, C: crate::autodiff::Strategy> AttentionOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl AttentionOps for CubeBackend {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        ranges: IntTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let [q, k, v, ranges] = contiguous([q, k, v, ranges]);
        let [tokens, n_heads, head_dim] = q.shape().dims();
        let [keys, n_kv_heads, _] = k.shape().dims();
        let group = n_heads / n_kv_heads;
        let y = output(&q, [tokens, n_heads, head_dim], DType::F32);
        let params = words![tokens, n_kv_heads, group, head_dim, keys, scale];
        let groups = [((tokens * group) as u32).div_ceil(ROWS), n_kv_heads as u32, 1];
        launch(Kernel::Attention, &[&q, &k, &v, &ranges, &y], &params, groups);
        y
    }
}

/// `softmax(q k^T * scale) v`, where token `t` reads the keys `ranges[t][0]..ranges[t][1]`.
///
/// `q: [tokens, n_heads, head_dim]`, `k, v: [keys, n_kv_heads, head_dim]`, `ranges: [tokens, 2]`;
/// query head `h` reads key head `h / (n_heads / n_kv_heads)`. Returns the shape of `q`; a token
/// with an empty range gives zeros. `head_dim` is at most [`MAX_HEAD_DIM`].
///
/// # Errors
/// [`crate::Error::Shape`] or [`crate::Error::Unsupported`] if sizes do not fit.
pub fn attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    ranges: Tensor<2, Int>,
    scale: f32,
) -> Result<Tensor<3>> {
    let [tokens, n_heads, head_dim] = q.dims();
    let [keys, n_kv_heads, _] = k.dims();
    supported(
        "attention",
        "head_dim",
        head_dim,
        "1 to 128",
        (1..=MAX_HEAD_DIM).contains(&head_dim),
    )?;
    let divides = n_kv_heads > 0 && n_heads.is_multiple_of(n_kv_heads);
    supported("attention", "n_heads", n_heads, "a multiple of the key heads", divides)?;
    expect("attention", "k", k.dims(), [keys, n_kv_heads, head_dim])?;
    expect("attention", "v", v.dims(), [keys, n_kv_heads, head_dim])?;
    expect("attention", "ranges", ranges.dims(), [tokens, 2])?;
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    Ok(Tensor::from_dispatch(Dispatch::attention(q, k, v, ranges.into_dispatch(), scale)))
}
