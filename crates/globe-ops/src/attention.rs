//! Softmax attention, each query over its own range of keys.

use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension, get_device_settings};
use burn::tensor::{DType, FloatDType, Int, IntDType, Tensor};
use globe_shaders::{Kernel, KvFormat, Program, QUADS};

use crate::Result;
use crate::device::Variant;
use crate::kv::kv_format;
use crate::launch::{contiguous, launch, output, words};
use crate::shapes::{expect, supported};

/// The widest head that fits the workgroup memory every adapter has.
pub const MAX_HEAD_DIM: usize = 128;
/// Scores that the oracle holds at once, 64 MiB of them: a large photo has gigabytes in all.
pub(crate) const MAX_SCORES: usize = 1 << 24;
/// Query rows per workgroup of every tiled kernel, and keys per workgroup of the backward pass.
const TILE: u32 = 64;
/// The same of the kernels with a row per lane.
const LANES_ROWS: u32 = 32;
/// The same of `attention_quads.wgsl`.
const QUADS_ROWS: u32 = 4;
/// Quads of a head that eight invocations sum with one quad each.
const QUADS_PER_PART: usize = 8;

/// What the op needs besides tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionPlan {
    pub(crate) kv: KvFormat,
    pub(crate) prefix: usize,
    pub(crate) scale: f32,
    pub(crate) variant: Variant,
}

impl AttentionPlan {
    /// Of two kernels, or of three in the forward pass, the one that suits the adapter, with as many
    /// quads as the head needs, and the rows of its workgroups.
    pub(crate) fn choose(self, tiled: Kernel, lanes: Kernel, head_dim: usize) -> (Program, u32) {
        let (kernel, rows) = match self.variant {
            Variant::Lanes => {
                let quads = Some(quads_of_lane(head_dim));
                return (Program { quads, ..lanes.into() }, LANES_ROWS);
            }
            Variant::Quads if tiled == Kernel::Attention => (Kernel::AttentionQuads, QUADS_ROWS),
            _ => (tiled, TILE),
        };
        let parts = (head_dim / 4).div_ceil(QUADS_PER_PART);
        (Program { parts: Some(parts), ..kernel.into() }, rows)
    }
}

/// What `#import quads` stands for: quads of a head that fits [`MAX_HEAD_DIM`], and no more than it needs, because a
/// software adapter computes those that are left out of a head as well.
pub(crate) fn quads_of_lane(head_dim: usize) -> usize {
    let [.., most] = QUADS;
    QUADS.into_iter().find(|quads| 4 * quads >= head_dim).unwrap_or(most)
}

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait AttentionOps: Backend {
    /// The body is the oracle; see [`attention_with_lse`]. It does store scores, though never
    /// more than [`MAX_SCORES`] of them.
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        ranges: IntTensor<Self>,
        plan: AttentionPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
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
            let visible = key_mask::<Self>(ranges, keys, plan.prefix);
            attend::<Self>(q, k.clone(), v.clone(), visible, plan.scale)
        });
        let (y, lse) = parts.unzip();
        (Self::float_cat(y, 0), Self::float_cat(lse, 0))
    }
}

/// Attention with all scores at once. `q: [tokens, n_heads, head_dim]`,
/// `k: [n_kv_heads, head_dim, keys]`, `v: [n_kv_heads, keys, head_dim]`, `visible: [tokens, keys]`.
/// Also returns the logarithm of each sum of weights, `[tokens, n_heads]`.
pub(crate) fn attend<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    visible: BoolTensor<B>,
    scale: f32,
) -> (FloatTensor<B>, FloatTensor<B>) {
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
    let weights = B::float_exp(B::float_sub(scores, highest.clone()));
    let weights = B::float_mul(weights, B::bool_into_float(visible, FloatDType::F32));
    let total = B::float_sum_dim(weights.clone(), 2); // [n_kv_heads, rows, 1]
    let norm = B::float_clamp_min(total.clone(), 1e-30.into());
    let y = B::float_div(B::float_matmul(weights, v), norm.clone());

    // A row that sees nothing has a sum of 0, and 0 instead of its logarithm.
    let store = get_device_settings::<B>(&total.device()).bool_dtype;
    let is_blind = B::float_lower_equal_elem(total, 0.0.into(), store);
    let lse = B::float_add(highest, B::float_log(norm));
    let lse = B::float_mask_fill(lse, is_blind, 0.0.into());

    let heads_last = |x, width: usize| {
        let x = B::float_reshape(x, [n_kv_heads, tokens, group, width].into());
        let x = B::float_permute(x, &[1, 0, 2, 3]);
        B::float_reshape(x, [tokens, n_heads, width].into())
    };
    (heads_last(y, head_dim), B::float_reshape(heads_last(lse, 1), [tokens, n_heads].into()))
}

/// Which of `keys` each token may read: those in its range of `ranges: [tokens, 2]`, and those
/// before both the prefix and the range. Returns `[tokens, keys]`.
pub(crate) fn key_mask<B: Backend>(
    ranges: IntTensor<B>,
    keys: usize,
    prefix: usize,
) -> BoolTensor<B> {
    let [tokens, _] = ranges.shape().dims();
    let device = ranges.device();
    let store = get_device_settings::<B>(&device).bool_dtype;
    let full = |x| B::int_expand(x, [tokens, keys].into());
    let bound =
        |i: usize| full(B::int_slice(ranges.clone(), &[(0..tokens).into(), (i..i + 1).into()]));
    let key = B::int_arange(0..keys as i64, &device, IntDType::I32);
    let key = full(B::int_reshape(key, [1, keys].into()));
    let in_range = B::bool_and(
        B::int_greater_equal(key.clone(), bound(0), store),
        B::int_lower(key.clone(), bound(1), store),
    );
    let in_prefix = B::bool_and(
        B::int_lower(key.clone(), bound(0), store),
        B::int_lower_elem(key, (prefix as i64).into(), store),
    );
    B::bool_or(in_range, in_prefix)
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
        plan: AttentionPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [q, k, v, ranges] = contiguous([q, k, v, ranges]);
        let [tokens, n_heads, head_dim] = q.shape().dims();
        let [keys, n_kv_heads, _] = k.shape().dims();
        let (group, quads) = (n_heads / n_kv_heads, head_dim / 4);
        let y = output(&q, [tokens, n_heads, head_dim], DType::F32);
        let lse = output(&q, [tokens, n_heads], DType::F32);
        let AttentionPlan { kv, prefix, scale, .. } = plan;
        let params = words![tokens, n_kv_heads, group, quads, keys, prefix, scale];
        let (program, rows) = plan.choose(Kernel::Attention, Kernel::AttentionLanes, head_dim);
        let groups = [((tokens * group) as u32).div_ceil(rows), n_kv_heads as u32, 1];
        let program = Program { kv: Some(kv), ..program };
        launch(program, &[&q, &k, &v, &ranges, &y, &lse], &params, groups);
        (y, lse)
    }
}

/// Errors unless the shapes fit together; see [`attention_with_lse`].
pub(crate) fn check_shapes(
    op: &'static str,
    q: &Tensor<3>,
    k: &Tensor<3>,
    v: &Tensor<3>,
    ranges: [usize; 2],
) -> Result<KvFormat> {
    let ([tokens, n_heads, head_dim], [keys, n_kv_heads, _]) = (q.dims(), k.dims());
    let fits = (1..=MAX_HEAD_DIM).contains(&head_dim);
    supported(op, "head_dim", head_dim, "1 to 128", fits)?;
    let divides = n_kv_heads > 0 && n_heads > 0 && n_heads.is_multiple_of(n_kv_heads);
    supported(op, "n_heads", n_heads, "a multiple of the key heads", divides)?;
    supported(op, "tokens", tokens, "at least 1", tokens > 0)?;
    supported(op, "keys", keys, "at least 1", keys > 0)?;
    expect(op, "ranges", ranges, [tokens, 2])?;
    kv_format(op, head_dim, k, v)
}

/// Heads with zeros up to a multiple of 4, which change no score: the kernels read quads.
pub(crate) fn whole_quads(x: Tensor<3>) -> Tensor<3> {
    let [rows, heads, head_dim] = x.dims();
    match head_dim.next_multiple_of(4) - head_dim {
        0 => x,
        missing => {
            let zeros = Tensor::zeros([rows, heads, missing], &x.device());
            Tensor::cat(vec![x, zeros], 2)
        }
    }
}

/// `softmax(q k^T * scale) v`, where token `t` reads the keys `ranges[t][0]..ranges[t][1]`.
///
/// `q: [tokens, n_heads, head_dim]`, `k, v: [keys, n_kv_heads, head_dim]`, `ranges: [tokens, 2]`;
/// query head `h` reads key head `h / (n_heads / n_kv_heads)`. Returns the shape of `q`; a token
/// with an empty range gives zeros. `head_dim` is at most [`MAX_HEAD_DIM`]. On an adapter `k` and `v` may be
/// half as wide, with two f16 in the bits of each number. `variant` is [`crate::Compute::variant`] of the
/// device, or another that it can run.
///
/// # Errors
/// [`crate::Error::Shape`] or [`crate::Error::Unsupported`] if sizes do not fit.
pub fn attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    ranges: Tensor<2, Int>,
    scale: f32,
    variant: Variant,
) -> Result<Tensor<3>> {
    Ok(attention_with_lse(q, k, v, &ranges, 0, scale, variant)?.0)
}

/// [`attention`] where several answers may stand behind one prompt: token `t` also reads the keys
/// before both `prefix` and `ranges[t][0]`. So a prompt token has the range `0..t + 1`, and a
/// token of an answer that starts at `a` has `a..t + 1`.
///
/// Also returns what the backward pass starts from, `[tokens, n_heads]`: the logarithm of the sum
/// of `exp(score)` over the keys read, 0 where there are none.
///
/// # Errors
/// [`crate::Error::Shape`] or [`crate::Error::Unsupported`] if sizes do not fit.
pub fn attention_with_lse(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    ranges: &Tensor<2, Int>,
    prefix: usize,
    scale: f32,
    variant: Variant,
) -> Result<(Tensor<3>, Tensor<2>)> {
    let kv = check_shapes("attention", &q, &k, &v, ranges.dims())?;
    let [tokens, n_heads, head_dim] = q.dims();
    let whole = |x: Tensor<3>| if kv == KvFormat::F32 { whole_quads(x) } else { x };
    let [q, k, v] = [whole_quads(q), whole(k), whole(v)].map(Tensor::into_dispatch);
    let plan = AttentionPlan { kv, prefix, scale, variant };
    let (y, lse) = Dispatch::attention(q, k, v, ranges.clone().into_dispatch(), plan);
    let y = Tensor::from_dispatch(y);
    let y = match head_dim.is_multiple_of(4) {
        true => y,
        false => y.slice([0..tokens, 0..n_heads, 0..head_dim]),
    };
    Ok((y, Tensor::from_dispatch(lse)))
}
