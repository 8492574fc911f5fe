//! Attention of one new token per row, over keys that all rows share and keys of its own.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Dispatch, TensorMetadata, backend_extension, get_device_settings};
use burn::tensor::{DType, Int, IntDType, Tensor};
use globe_shaders::{Kernel, KvFormat, Program};

use crate::Result;
use crate::attention::{AttentionOps, MAX_HEAD_DIM, attend, quads_of_lane};
use crate::device::Variant;
use crate::kv::kv_format;
use crate::launch::{contiguous, launch, output, words};
use crate::shapes::{expect, supported};

/// Keys per workgroup.
const KEYS: usize = 64;
/// Query heads per workgroup of `attention_split.wgsl`.
const HEADS: usize = 8;
/// The same of `attention_split_quads.wgsl`.
const QUADS_HEADS: usize = 4;
/// Lanes of the kernel with queries in lanes.
const LANES: usize = 8;
/// Queries per lane where rows share what they load.
const AT_ONCE: usize = 4;

/// Keys that a launch of `attention_split_lanes.wgsl` takes.
#[derive(Clone, Copy)]
enum Part {
    All = 0,
    /// Chunks that lie within the prefix as a whole.
    Shared = 1,
    Rest = 2,
}

/// What the op needs besides tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepAttention {
    /// Factor of the scores.
    pub scale: f32,
    /// Only the last keys are read; `None` reads all.
    pub window: Option<usize>,
    /// Most keys that a row can have, prefix included.
    pub max_keys: usize,
    /// [`crate::Compute::variant`] of the device, or another that it can run.
    pub variant: Variant,
}

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait AttentionStepOps: AttentionOps {
    /// The body is the oracle; see [`attention_step`] for shapes.
    fn attention_step(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        places: IntTensor<Self>,
        plan: StepAttention,
        _kv: KvFormat,
    ) -> FloatTensor<Self> {
        let [rows, _, _] = q.shape().dims();
        let [slots, _, _] = k.shape().dims();
        let device = places.device();
        let store = get_device_settings::<Self>(&device).bool_dtype;
        let full = |x| Self::int_expand(x, [rows, slots].into());
        let column = |i: usize| {
            let all = [(0..rows).into(), (i..i + 1).into()];
            full(Self::int_slice(places.clone(), &all))
        };
        let (prefix, tail, tail_len) = (column(0), column(1), column(2));
        let slot = Self::int_arange(0..slots as i64, &device, IntDType::I32);
        let slot = full(Self::int_reshape(slot, [1, slots].into()));
        // How many keys stand before this slot: its own index, or the prefix and a part of the tail.
        let in_prefix = Self::int_lower(slot.clone(), prefix.clone(), store);
        let in_tail = Self::bool_and(
            Self::int_greater_equal(slot.clone(), tail.clone(), store),
            Self::int_lower(slot.clone(), Self::int_add(tail.clone(), tail_len.clone()), store),
        );
        let from_tail = Self::int_add(Self::int_sub(slot.clone(), tail), prefix.clone());
        let index = Self::int_mask_where(from_tail, in_prefix.clone(), slot);
        let len = Self::int_add(prefix, tail_len);
        let oldest = match plan.window {
            Some(window) => Self::int_sub_scalar(len, (window as i64).into()),
            None => Self::int_mul_scalar(len, 0.into()),
        };
        let visible = Self::bool_and(
            Self::bool_or(in_prefix, in_tail),
            Self::int_greater_equal(index, oldest, store),
        );
        let k = Self::float_permute(k, &[1, 2, 0]);
        let v = Self::float_permute(v, &[1, 0, 2]);
        attend::<Self>(q, k, v, visible, plan.scale).0
    }
}

#[cfg(feature = "flex")]
impl AttentionStepOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: AttentionStepOps, C: crate::autodiff::Strategy> AttentionStepOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl AttentionStepOps for CubeBackend {
    fn attention_step(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        places: IntTensor<Self>,
        plan: StepAttention,
        kv: KvFormat,
    ) -> FloatTensor<Self> {
        let [q, k, v, places] = contiguous([q, k, v, places]);
        let [rows, n_heads, head_dim] = q.shape().dims();
        let [_, n_kv_heads, _] = k.shape().dims();
        let (group, quads) = (n_heads / n_kv_heads, head_dim / 4);
        let chunks = plan.max_keys.div_ceil(KEYS);
        let sums = output(&q, [rows, n_heads, chunks, head_dim], DType::F32);
        let stats = output(&q, [rows, n_heads, chunks, 2], DType::F32);
        let y = output(&q, [rows, n_heads, head_dim], DType::F32);
        let window = plan.window.unwrap_or(0);
        let tensors = [&q, &k, &v, &places, &sums, &stats];
        if plan.variant == Variant::Lanes {
            let lanes = |part: Part, at_once: usize| {
                let teams = group.div_ceil(LANES * at_once);
                let params = words![
                    rows,
                    n_kv_heads,
                    group,
                    quads,
                    chunks,
                    window,
                    teams,
                    part as u32,
                    plan.scale
                ];
                let queries = match part {
                    Part::Shared => (rows * group).div_ceil(LANES * at_once),
                    Part::All | Part::Rest => rows * teams,
                };
                let (quads, kv) = (Some(quads_of_lane(head_dim)), Some(kv));
                let kernel = Kernel::AttentionSplitLanes.into();
                let program = Program { quads, rows: Some(at_once), kv, ..kernel };
                launch(program, &tensors, &params, [chunks, n_kv_heads, queries].map(|n| n as u32));
            };
            if rows == 1 {
                lanes(Part::All, 1);
            } else {
                lanes(Part::Shared, AT_ONCE);
                lanes(Part::Rest, 1);
            }
        } else {
            let (kernel, heads) = match plan.variant {
                Variant::Quads => (Kernel::AttentionSplitQuads, QUADS_HEADS),
                _ => (Kernel::AttentionSplit, HEADS),
            };
            let teams = group.div_ceil(heads);
            let params = words![n_kv_heads, group, quads, chunks, window, teams, plan.scale];
            let groups = [chunks, n_kv_heads * teams, rows].map(|n| n as u32);
            let split = Program { kv: Some(kv), ..kernel.into() };
            launch(split, &tensors, &params, groups);
        }
        let params = words![n_heads, quads, chunks];
        let groups = [n_heads as u32, rows as u32, 1];
        launch(Kernel::AttentionMerge, &[&sums, &stats, &places, &y], &params, groups);
        y
    }
}

/// How often a step of `rows` rows reads the keys that they share, where `group` query heads share a key head. Workgroups
/// that read the keys of one row are taken to find them in a cache.
pub fn prefix_reads(variant: Variant, rows: usize, group: usize) -> usize {
    match variant {
        Variant::Lanes if rows > 1 => (rows * group).div_ceil(LANES * AT_ONCE),
        _ => rows,
    }
}

/// Bytes of the partial sums of [`attention_step`], which reads keys in chunks: `n_heads` heads of
/// `head_dim` in each of `rows` rows over at most `max_keys` keys.
pub fn step_scratch_bytes(rows: usize, n_heads: usize, head_dim: usize, max_keys: usize) -> u64 {
    let factors = [size_of::<f32>(), rows, n_heads, max_keys.div_ceil(KEYS), head_dim + 2];
    factors.into_iter().map(|factor| factor as u64).product()
}

/// `softmax(q k^T * scale) v` for one token per row. Row `r` reads the keys `0..places[r][0]`,
/// which all rows share, and then its own: `places[r][2]` keys from slot `places[r][1]` on.
///
/// `q: [rows, n_heads, head_dim]`, `k, v: [slots, n_kv_heads, head_dim]`, `places: [rows, 4]` of
/// prefix, first slot of the tail, length of the tail, and a position that is not read here.
/// `head_dim` is a multiple of 4, at most [`MAX_HEAD_DIM`]. Returns the shape of `q`. Of 16-bit keys as
/// in [`crate::attention`].
///
/// # Errors
/// [`crate::Error::Shape`] or [`crate::Error::Unsupported`] if sizes do not fit.
pub fn attention_step(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    places: &Tensor<2, Int>,
    plan: StepAttention,
) -> Result<Tensor<3>> {
    let op = "attention_step";
    let ([rows, n_heads, head_dim], [_, n_kv_heads, _]) = (q.dims(), k.dims());
    let fits = head_dim.is_multiple_of(4) && (4..=MAX_HEAD_DIM).contains(&head_dim);
    supported(op, "head_dim", head_dim, "a multiple of 4, at most 128", fits)?;
    let divides = n_kv_heads > 0 && n_heads.is_multiple_of(n_kv_heads);
    supported(op, "n_heads", n_heads, "a multiple of the key heads", divides)?;
    let kv = kv_format(op, head_dim, &k, &v)?;
    expect(op, "places", places.dims(), [rows, 4])?;
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    let places = places.clone().into_dispatch();
    Ok(Tensor::from_dispatch(Dispatch::attention_step(q, k, v, places, plan, kv)))
}
