//! Bytes that training takes on the device, known before a weight is read.
//!
//! Counted like [`crate::MemoryPlan`]: buffers that live at the same time, in the order in which
//! `qwen2_5_vl/training.rs` and `block.rs` make and drop them.

use globe_format::packed::TensorSpec;
use globe_ops::BLOCK;
use serde::Serialize;

use crate::Config;
use crate::lora::module_name;
use crate::qwen2_5_vl::{KEPT_ACTIVATION_BYTES, head_rows};

/// Bytes of one activation, index or parameter.
const F32: u64 = 4;

/// Numbers that an adapter keeps, those included that fill its matrices up to whole blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AdapterPlan {
    /// Of `A` and `B` of all fused matrices.
    pub values: usize,
    /// Of the masks that keep zeros in `B` where several modules share it.
    pub masks: usize,
    /// Of every `B` times the scale, which products read.
    pub scaled: usize,
    /// The widest product with an `A`.
    pub width: usize,
}

impl AdapterPlan {
    pub(crate) fn new<'a>(
        matrices: impl Iterator<Item = &'a TensorSpec>,
        rank: usize,
        is_adapted: impl Fn(&str) -> bool,
    ) -> Self {
        let mut plan = Self::default();
        for spec in matrices {
            let modules = spec.sources.iter().filter(|s| is_adapted(module_name(&s.name))).count();
            if modules == 0 {
                continue;
            }
            let width = (modules * rank).next_multiple_of(BLOCK);
            plan.values += width * (spec.cols.next_multiple_of(BLOCK) + spec.rows);
            plan.scaled += spec.rows * width;
            plan.masks += if modules > 1 { spec.rows * width } else { 0 };
            plan.width = plan.width.max(width);
        }
        plan
    }

    /// The adapter with its masks and what is multiplied beforehand, bytes.
    pub fn size_bytes(&self) -> u64 {
        F32 * (self.values + self.masks + self.scaled) as u64
    }
}

/// What one training pass computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainingWorkload {
    /// Sequences whose forward passes are kept until gradients are known.
    pub sequences: usize,
    /// Tokens of the longest.
    pub tokens: usize,
    /// Tokens of answers in it, whose log-probabilities are computed.
    pub targets: usize,
    /// [`AdapterPlan::width`], 0 without an adapter.
    pub adapter_width: usize,
}

/// Bytes by part, besides weights, gradients and optimiser. With T tokens, L layers, H hidden, F
/// feed-forward (whole blocks), Q and K the widths of all query and all key heads, n query heads, V the
/// vocabulary: a layer has `T · (4H + 2Q + 2K + 3F + n)` activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrainingPlan {
    /// Inputs of all layers, and the indices of tokens.
    pub inputs: u64,
    /// Activations that are kept, those of a small model.
    pub kept: u64,
    /// The last layer run backwards: activations unless they are kept, and gradients.
    pub layer: u64,
    /// The head run backwards, some rows at a time.
    pub head: u64,
}

impl TrainingPlan {
    /// Of a pass over a model with this configuration.
    pub fn new(config: &Config, work: &TrainingWorkload) -> Self {
        let text = &config.text;
        let (t, layers, h) = (work.tokens, text.num_hidden_layers, text.hidden_size);
        let f = text.intermediate_size.next_multiple_of(BLOCK);
        let (n, k) = (text.num_attention_heads, text.n_kv_heads() * text.head_dim());
        let q = n * text.head_dim();
        let w = work.adapter_width;
        // Activations besides the output, which is an input; see `Activations`.
        let activations = 3 * h + 2 * q + 2 * k + 3 * f + n;
        let n_kept =
            (KEPT_ACTIVATION_BYTES / bytes(t * (activations + h)).max(1) as usize).min(layers);
        let gradients = layer_gradients(h, q, k, f, n, w);
        let own = if n_kept == layers { 0 } else { activations };
        // Three axes of positions, slots, ranges of keys and of queries; the table of angles.
        let indices = t * (3 + 1 + 2 + 2 + text.head_dim());

        let rows = head_rows(text.vocab_size).min(work.targets);
        // Gradients of logits take their place.
        let chunk = rows * (3 * h + text.vocab_size) + (work.targets - rows) * h;
        let joined = if work.targets > rows { work.targets * h } else { 0 };
        let summed = (work.targets + t) * h + joined;
        Self {
            inputs: work.sequences as u64 * bytes((layers + 1) * t * h + indices),
            kept: work.sequences as u64 * bytes(n_kept * t * activations),
            layer: bytes(t * (own + gradients)),
            head: bytes(3 * work.targets + chunk.max(summed)),
        }
    }

    /// The largest moment.
    pub fn size_bytes(&self) -> u64 {
        self.inputs + self.kept + self.layer.max(self.head)
    }
}

/// Floats per token at the largest moment of one layer run backwards, besides the input, the output
/// and the activations as far as they still live.
fn layer_gradients(h: usize, q: usize, k: usize, f: usize, n: usize, w: usize) -> usize {
    let adapted = usize::from(w > 0);
    let freed = |live: usize, freed: usize| live.saturating_sub(freed);
    [
        h + f + w + adapted * f,                                   // down
        h + 2 * f,                                                 // SwiGLU
        freed(h + 2 * f + h + w + adapted * h, 3 * f),             // gate and up
        freed(h + h + q + w + adapted * q, 3 * f + h),             // projection of attention
        freed(h + q + 4 * n + q + 2 * k, 3 * f + 2 * h),           // attention
        freed(h + q + 2 * k + h + w + adapted * h, 3 * f + 2 * h), // queries, keys, values
    ]
    .into_iter()
    .max()
    .unwrap_or(0)
}

fn bytes(floats: usize) -> u64 {
    F32 * floats as u64
}
