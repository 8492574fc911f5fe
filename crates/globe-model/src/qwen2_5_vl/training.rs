//! The training pass: log-probabilities of given answers, and gradients of adapters or weights.
//!
//! Answers to one prompt lie behind it in one sequence, which other prompts can share: `sequence.rs`.
//! Of the forward pass only the input of every layer is kept, and activations as far as they are small;
//! the backward pass computes the others again, one layer's at a time. The head runs over some rows at a time, so no `[tokens, vocab]`
//! tensor exists.

use std::ops::Range;

use globe_ops::{
    Device, Int, LogpOptions, Tensor, gather_rows, logp_gather, logp_gather_backward, read_f32,
    scatter_add_rows, tensor_f32, tensor_i32, zeros,
};

use super::block::{Activations, Block};
use super::sequence::{AnswerGroup, Sequence};
use super::{DecoderLayer, Qwen2_5Vl};
use crate::gradients::{Gradients, LinearSums};
use crate::{Error, Result};

/// Bytes of logits at a time.
const LOGITS_BYTES: usize = 64 << 20;
/// Bytes of activations that a pass keeps: all of a tiny model's, for which computing them again is a
/// tenth of a step, and none of a large one's.
pub(crate) const KEPT_ACTIVATION_BYTES: usize = 64 << 20;

/// Per token of one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnswerLogps {
    /// Log-probability under the softmax of `logits / temperature`, smoothed if that was asked for.
    pub logp: Vec<f32>,
    /// Entropy of that distribution in nats.
    pub entropy: Vec<f32>,
}

/// What the backward pass needs of a forward pass.
pub struct TrainingPass {
    sequence: Sequence,
    /// Input of every layer and the output of the last; only that without gradients.
    inputs: Vec<Tensor<2>>,
    /// Activations of every layer that is not computed again.
    kept: Vec<Option<Activations>>,
    /// Log-probability, entropy and log-sum-exp of every target: `[targets, 3]`.
    stats: Tensor<2>,
    options: LogpOptions,
}

impl Qwen2_5Vl {
    /// Log-probabilities of the answers of all groups, in one sequence and with the adapters that are
    /// switched on; `keep` keeps what [`Qwen2_5Vl::backward`] needs.
    ///
    /// # Errors
    /// [`Error`] if ids and images do not fit together, [`Error::Training`] for a model with
    /// sliding windows shorter than a group, and for several groups of which one cannot share
    /// ([`AnswerGroup::can_share`]).
    pub fn forward(
        &self,
        groups: &[AnswerGroup],
        options: LogpOptions,
        keep: bool,
    ) -> Result<TrainingPass> {
        let sequence = self.sequence(groups)?;
        let embedded = groups.iter().map(|group| self.embed_group(group));
        let hidden = self.config.text.hidden_size;
        let mut x = joined(embedded.collect::<Result<_>>()?, hidden, &self.device);
        let (mut inputs, mut kept, mut room) = (Vec::new(), Vec::new(), KEPT_ACTIVATION_BYTES);
        for layer in &self.model.layers {
            if keep {
                inputs.push(x.clone());
            }
            let activations = layer.block().activations(x, &sequence.context)?;
            x = activations.out.clone();
            if keep {
                let size = activations.size_bytes();
                kept.push((size <= room).then_some(activations));
                room = room.saturating_sub(size);
            }
        }
        inputs.push(x.clone());
        let mut stats = Vec::new();
        for rows in self.head_rows(&sequence) {
            let (_, logits, targets) = self.logits(&x, &sequence, rows)?;
            stats.push(logp_gather(logits, targets, options)?);
        }
        let stats = joined(stats, 3, &self.device);
        Ok(TrainingPass { sequence, inputs, kept, stats, options })
    }

    /// Adds the gradients of what is trained to `sum`. `dlogp`: the derivative of the loss by the
    /// log-probability of every token of every answer. Returns the gradient of the features of the
    /// images, `[image tokens, hidden]`, if `sum` has a place for that of the tower.
    ///
    /// # Errors
    /// [`Error::Training`] if the pass was not kept or `dlogp` has other lengths.
    pub fn backward(
        &self,
        mut pass: TrainingPass,
        dlogp: &[Vec<f32>],
        sum: &mut Gradients,
    ) -> Result<Option<Tensor<2>>> {
        if pass.inputs.len() != self.model.layers.len() + 1 {
            let reason = "the forward pass kept nothing for a backward pass".into();
            return Err(Error::Training { reason });
        }
        let dlogp = pass.sequence.by_target(dlogp)?;
        if dlogp.is_empty() {
            return Ok(None);
        }
        let Some(x) = pass.inputs.pop() else { return Ok(None) };
        let mut dx = self.head_backward(x, &pass, dlogp, sum)?;
        let sequence = &pass.sequence;
        for (i, layer) in self.model.layers.iter().enumerate().rev() {
            let Some(x) = pass.inputs.pop() else { break };
            let (kept, sums) = (pass.kept.pop().flatten(), self.layer_sums(sum, i));
            dx = layer.block().backward(x, kept, dx, &sequence.context, sums)?;
        }
        if let Some(table) = sum.weight(self.places().table) {
            table.add_rows(&dx, &sequence.looked_up)?;
        }
        if sequence.image_places.is_empty() || sum.weight(0).is_none() {
            return Ok(None);
        }
        let places =
            tensor_i32(sequence.image_places.clone(), [sequence.image_places.len()], &self.device);
        Ok(Some(gather_rows(&dx, places)))
    }

    /// Embeddings of a group: `[tokens, hidden]`.
    fn embed_group(&self, group: &AnswerGroup) -> Result<Tensor<2>> {
        let prompt = self.embed_prompt(group.prompt, group.images.clone())?;
        let ids = group.read_ids();
        if ids.is_empty() {
            return Ok(prompt);
        }
        let n = ids.len();
        let answers = self.model.embed_tokens.forward(tensor_i32(ids, [n], &self.device));
        Ok(Tensor::cat(vec![prompt, answers], 0))
    }

    /// The targets, as many at a time as [`head_rows`] says.
    fn head_rows(&self, sequence: &Sequence) -> Vec<Range<usize>> {
        let (n, step) = (sequence.targets.len(), head_rows(self.config.text.vocab_size));
        (0..n).step_by(step).map(|start| start..n.min(start + step)).collect()
    }

    /// Residual stream before and after its norm, logits and targets of some rows.
    fn logits(
        &self,
        x: &Tensor<2>,
        sequence: &Sequence,
        rows: Range<usize>,
    ) -> Result<([Tensor<2>; 2], Tensor<2>, Tensor<1, Int>)> {
        let index =
            |all: &[i32]| tensor_i32(all[rows.clone()].to_vec(), [rows.len()], &self.device);
        let x = gather_rows(x, index(&sequence.sources)); // [rows, hidden]
        let normed = self.model.norm.forward(x.clone())?;
        let logits = self.lm_head.forward(normed.clone())?;
        Ok(([x, normed], logits, index(&sequence.targets)))
    }

    /// Gradient of the residual stream after the last layer: `[tokens, hidden]`.
    fn head_backward(
        &self,
        x: Tensor<2>,
        pass: &TrainingPass,
        dlogp: Vec<f32>,
        sum: &mut Gradients,
    ) -> Result<Tensor<2>> {
        let places = self.places();
        let (sequence, device) = (&pass.sequence, &self.device);
        let [_, hidden] = x.dims();
        let mut parts = Vec::new();
        for rows in self.head_rows(sequence) {
            let n = rows.len();
            let ([x, normed], logits, targets) = self.logits(&x, sequence, rows.clone())?;
            let stats = pass.stats.clone().slice([rows.clone(), 0..3]);
            let dlogp = tensor_f32(dlogp[rows].to_vec(), [n], device);
            let dlogits = logp_gather_backward(logits, targets, stats, dlogp, pass.options)?;
            let head = LinearSums { weight: sum.weight(places.head), ..LinearSums::default() };
            let dnormed = self.lm_head.backward(normed, dlogits, head)?;
            parts.push(self.model.norm.backward(x, dnormed, None, sum.weight(places.norm))?);
        }
        // All first tokens of a group come after the same token of its prompt: rows are added up.
        let pairs = sequence.sources.iter().enumerate();
        let pairs: Vec<_> = pairs.map(|(target, source)| [target, *source as usize]).collect();
        let dx = zeros([sequence.tokens, hidden], device);
        Ok(scatter_add_rows(dx, joined(parts, hidden, device), &pairs)?)
    }
}

/// Targets whose logits are computed at once.
pub(crate) fn head_rows(vocab_size: usize) -> usize {
    (LOGITS_BYTES / size_of::<f32>() / vocab_size.max(1)).clamp(1, 256)
}

/// Rows of all parts, `width` wide; one part is not copied.
fn joined(mut parts: Vec<Tensor<2>>, width: usize, device: &Device) -> Tensor<2> {
    match parts.len() {
        0 => zeros([0, width], device),
        1 => parts.swap_remove(0),
        _ => Tensor::cat(parts, 0),
    }
}

impl DecoderLayer {
    fn block(&self) -> Block<'_> {
        Block {
            first_norm: &self.input_layernorm,
            qkv: &self.qkv,
            out: &self.o_proj,
            second_norm: &self.post_attention_layernorm,
            mlp: &self.mlp,
        }
    }
}

impl TrainingPass {
    /// Log-probabilities and entropies of the answers.
    ///
    /// # Errors
    /// [`Error::Ops`] if the device failed.
    pub async fn logps(&self) -> Result<Vec<AnswerLogps>> {
        let stats = read_f32(self.stats.clone()).await?;
        let logp = self.sequence.by_answer(|target| stats[3 * target]);
        let entropy = self.sequence.by_answer(|target| stats[3 * target + 1]);
        let pair = |(logp, entropy)| AnswerLogps { logp, entropy };
        Ok(logp.into_iter().zip(entropy).map(pair).collect())
    }

    /// Tokens of the sequence that was computed.
    pub fn tokens(&self) -> usize {
        self.sequence.tokens
    }
}
