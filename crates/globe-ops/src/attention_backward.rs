//! Gradients of attention, the weights computed again from what the forward pass saved.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, FloatDType, Int, Tensor};
use globe_shaders::{Kernel, KvFormat};

use crate::Result;
use crate::attention::{AttentionPlan, MAX_SCORES, check_shapes, key_mask, whole_quads};
use crate::device::Variant;
use crate::launch::{contiguous, element_groups, launch, output, words};
use crate::shapes::{expect, supported};

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait AttentionBackwardOps: Backend {
    /// The body is the oracle; see [`attention_backward`]. Returns dq, dk and dv.
    #[allow(clippy::too_many_arguments, reason = "one for each binding of the kernels")]
    fn attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        y: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        ranges: IntTensor<Self>,
        _key_ranges: IntTensor<Self>,
        plan: AttentionPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [tokens, n_heads, head_dim] = q.shape().dims();
        let [keys, n_kv_heads, _] = k.shape().dims();
        let keys_first = |x| Self::float_permute(x, &[1, 0, 2]); // [n_kv_heads, keys, head_dim]
        let (k, v) = (keys_first(k), keys_first(v));
        let lse = Self::float_reshape(lse, [tokens, n_heads, 1].into());
        let delta = Self::float_sum_dim(Self::float_mul(dy.clone(), y), 2);

        let step = (MAX_SCORES / (n_heads * keys).max(1)).clamp(1, tokens.max(1));
        let mut dq = Vec::new();
        let mut sums: Option<(FloatTensor<Self>, FloatTensor<Self>)> = None;
        for start in (0..tokens).step_by(step) {
            let part = start..tokens.min(start + step);
            let [q, dy, lse, delta] = [&q, &dy, &lse, &delta]
                .map(|x| grouped::<Self>(x.clone(), part.clone(), n_kv_heads));
            let ranges = Self::int_slice(ranges.clone(), &[part.clone().into(), (0..2).into()]);
            let visible = key_mask::<Self>(ranges, keys, plan.prefix);
            let visible = Self::bool_into_float(visible, FloatDType::F32);
            let visible = Self::float_reshape(visible, [part.len(), 1, keys].into());
            let visible =
                Self::float_expand(visible, [part.len(), n_heads / n_kv_heads, keys].into());
            let rows = part.len() * n_heads / n_kv_heads;
            let visible = Self::float_reshape(visible, [1, rows, keys].into());

            let scores = Self::float_matmul(q.clone(), Self::float_swap_dims(k.clone(), 1, 2));
            let scores = Self::float_sub(Self::float_mul_scalar(scores, plan.scale.into()), lse);
            // No score is above its lse, except those not counted, which may be beyond exp.
            let p = Self::float_exp(Self::float_clamp_max(scores, 1.0.into()));
            let p = Self::float_mul(p, visible); // [n_kv_heads, rows, keys]
            let dp = Self::float_matmul(dy.clone(), Self::float_swap_dims(v.clone(), 1, 2));
            let ds = Self::float_mul(p.clone(), Self::float_sub(dp, delta));
            let ds = Self::float_mul_scalar(ds, plan.scale.into());

            let dq_part = Self::float_matmul(ds.clone(), k.clone());
            let shape = [n_kv_heads, part.len(), n_heads / n_kv_heads, head_dim];
            let dq_part = Self::float_reshape(dq_part, shape.into());
            let dq_part = Self::float_permute(dq_part, &[1, 0, 2, 3]);
            dq.push(Self::float_reshape(dq_part, [part.len(), n_heads, head_dim].into()));
            let dk = Self::float_matmul(Self::float_swap_dims(ds, 1, 2), q);
            let dv = Self::float_matmul(Self::float_swap_dims(p, 1, 2), dy);
            sums = Some(match sums {
                Some(sums) => (Self::float_add(sums.0, dk), Self::float_add(sums.1, dv)),
                None => (dk, dv),
            });
        }
        let (dk, dv) = sums.expect("attention_backward checked that there are tokens");
        let heads_second = |x| Self::float_permute(x, &[1, 0, 2]); // [keys, n_kv_heads, head_dim]
        (Self::float_cat(dq, 0), heads_second(dk), heads_second(dv))
    }
}

/// Some tokens of `x: [tokens, n_heads, width]` as `[n_kv_heads, tokens * group, width]`.
fn grouped<B: Backend>(
    x: FloatTensor<B>,
    tokens: std::ops::Range<usize>,
    n_kv_heads: usize,
) -> FloatTensor<B> {
    let [_, n_heads, width] = x.shape().dims();
    let (len, group) = (tokens.len(), n_heads / n_kv_heads);
    let x = B::float_slice(x, &[tokens.into(), (0..n_heads).into(), (0..width).into()]);
    let x = B::float_reshape(x, [len, n_kv_heads, group, width].into());
    let x = B::float_permute(x, &[1, 0, 2, 3]);
    B::float_reshape(x, [n_kv_heads, len * group, width].into())
}

#[cfg(feature = "flex")]
impl AttentionBackwardOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: AttentionBackwardOps, C: crate::autodiff::Strategy> AttentionBackwardOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl AttentionBackwardOps for CubeBackend {
    fn attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        y: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        ranges: IntTensor<Self>,
        key_ranges: IntTensor<Self>,
        plan: AttentionPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [q, k, v, y, lse, dy] = contiguous([q, k, v, y, lse, dy]);
        let [ranges, key_ranges] = contiguous([ranges, key_ranges]);
        let [tokens, n_heads, head_dim] = q.shape().dims();
        let [keys, n_kv_heads, _] = k.shape().dims();
        let (group, quads) = (n_heads / n_kv_heads, head_dim / 4);
        let stats = output(&q, [tokens, n_heads, 4], DType::I32);
        let [dq, dk, dv] = [&q, &k, &v].map(|x| output(x, x.shape(), DType::F32));

        let (groups, stride) = element_groups(tokens * n_heads);
        let params = words![tokens * n_heads, n_heads, quads, keys, stride];
        let tensors = [&y, &dy, &lse, &ranges, &stats];
        launch(Kernel::AttentionBackwardStats, &tensors, &params, groups);

        let AttentionPlan { prefix, scale, .. } = plan;
        let params = words![tokens, n_kv_heads, group, quads, keys, prefix, scale];
        let (tiled, lanes) = (Kernel::AttentionBackwardDq, Kernel::AttentionBackwardDqLanes);
        let (program, owned) = plan.choose(tiled, lanes, head_dim);
        let groups = [((tokens * group) as u32).div_ceil(owned), n_kv_heads as u32, 1];
        launch(program, &[&q, &k, &v, &dy, &stats, &dq], &params, groups);

        let (tiled, lanes) = (Kernel::AttentionBackwardDkv, Kernel::AttentionBackwardDkvLanes);
        let (program, owned) = plan.choose(tiled, lanes, head_dim);
        let tensors = [&q, &k, &v, &dy, &stats, &key_ranges, &dk, &dv];
        let groups = [(keys as u32).div_ceil(owned), n_kv_heads as u32, 1];
        launch(program, &tensors, &params, groups);
        (dq, dk, dv)
    }
}

/// Inputs and results of [`crate::attention_with_lse`], which the backward pass starts from.
#[derive(Clone, Debug)]
pub struct SavedAttention {
    /// Queries, `[tokens, n_heads, head_dim]`.
    pub q: Tensor<3>,
    /// Keys, `[keys, n_kv_heads, head_dim]`.
    pub k: Tensor<3>,
    /// Values, of the shape of the keys.
    pub v: Tensor<3>,
    /// The result, of the shape of the queries.
    pub y: Tensor<3>,
    /// Logarithms of the sums of weights, `[tokens, n_heads]`.
    pub lse: Tensor<2>,
    /// First and end key of each token, `[tokens, 2]`.
    pub ranges: Tensor<2, Int>,
    /// Keys at the start that later tokens read besides their range.
    pub prefix: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Which kernels attend, as in the forward pass.
    pub variant: Variant,
}

/// Gradients of queries, keys and values of [`crate::attention_with_lse`] from `dy`, the gradient
/// of its result (arXiv 2307.08691, algorithm 2, without atomics: equal inputs give equal bits).
///
/// `key_ranges: [keys, 2]` holds the first and the end token that may read each key, as
/// [`key_ranges`] computes them; a range too wide costs time, one too narrow loses gradients.
/// Returns `(dq, dk, dv)`, of the shapes of `q`, `k` and `v`.
///
/// # Errors
/// [`crate::Error::Shape`] or [`crate::Error::Unsupported`] if sizes do not fit.
pub fn attention_backward(
    saved: SavedAttention,
    dy: Tensor<3>,
    key_ranges: &Tensor<2, Int>,
) -> Result<(Tensor<3>, Tensor<3>, Tensor<3>)> {
    let op = "attention_backward";
    let SavedAttention { q, k, v, y, lse, ranges, prefix, scale, variant } = saved;
    let kv = check_shapes(op, &q, &k, &v, ranges.dims())?;
    supported(op, "bits of keys", 16, "32", kv == KvFormat::F32)?;
    let ([tokens, n_heads, head_dim], [keys, n_kv_heads, _]) = (q.dims(), k.dims());
    expect(op, "y", y.dims(), q.dims())?;
    expect(op, "dy", dy.dims(), q.dims())?;
    expect(op, "lse", lse.dims(), [tokens, n_heads])?;
    expect(op, "key_ranges", key_ranges.dims(), [keys, 2])?;

    let [q, k, v, y, dy] = [q, k, v, y, dy].map(|x| whole_quads(x).into_dispatch());
    let (lse, ranges) = (lse.into_dispatch(), ranges.into_dispatch());
    let key_ranges = key_ranges.clone().into_dispatch();
    let plan = AttentionPlan { kv, prefix, scale, variant };
    let (dq, dk, dv) = Dispatch::attention_backward(q, k, v, y, lse, dy, ranges, key_ranges, plan);
    let narrow = |x, rows: usize, heads: usize| {
        let x = Tensor::<3>::from_dispatch(x);
        match head_dim.is_multiple_of(4) {
            true => x,
            false => x.slice([0..rows, 0..heads, 0..head_dim]),
        }
    };
    let (dk, dv) = (narrow(dk, keys, n_kv_heads), narrow(dv, keys, n_kv_heads));
    Ok((narrow(dq, tokens, n_heads), dk, dv))
}

/// The first and the end token that read each of `keys`, from the keys that each token reads:
/// those in its range, and those before both `prefix` and the range. `[0, 0]` if none does.
pub fn key_ranges(ranges: &[[i32; 2]], prefix: usize, keys: usize) -> Vec<[i32; 2]> {
    let first = first_readers(0..ranges.len(), ranges, prefix, keys);
    let last = first_readers((0..ranges.len()).rev(), ranges, prefix, keys);
    let range = |(first, last): (Option<usize>, Option<usize>)| match (first, last) {
        (Some(first), Some(last)) => [first as i32, last as i32 + 1],
        _ => [0, 0],
    };
    first.into_iter().zip(last).map(range).collect()
}

/// For each key the token that reads it and comes first in `order`.
fn first_readers(
    order: impl Iterator<Item = usize>,
    ranges: &[[i32; 2]],
    prefix: usize,
    keys: usize,
) -> Vec<Option<usize>> {
    let mut readers = vec![None; keys];
    // From each key towards the next one without a reader: keys that have one are passed over.
    let mut next: Vec<usize> = (0..=keys).collect();
    let unread = |next: &mut [usize], mut key: usize| {
        while next[key] != key {
            next[key] = next[next[key]];
            key = next[key];
        }
        key
    };
    for token in order {
        let [first, end] = ranges[token].map(|key| (key.max(0) as usize).min(keys));
        for span in [0..prefix.min(first), first..end] {
            let mut key = unread(&mut next, span.start);
            while key < span.end {
                readers[key] = Some(token);
                next[key] = key + 1;
                key = unread(&mut next, key);
            }
        }
    }
    readers
}
