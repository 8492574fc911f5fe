//! The training pass: log-probabilities of given answers, and gradients of adapters or weights.
//!
//! Answers to one prompt lie behind it in one sequence, `[prompt | answer | answer ...]`, and each
//! sees the prompt and itself: photo and prompt are computed once for all of them. Of the forward
//! pass only the input of every layer is kept; the backward pass computes one layer's activations
//! again at a time. The head runs over some rows at a time, so no `[tokens, vocab]` tensor exists.

use std::ops::Range;

use globe_ops::{
    Int, Tensor, gather_rows, key_ranges, logp_gather, logp_gather_backward, read_f32,
    scatter_rows, tensor_f32, tensor_i32, zeros,
};

use super::block::{Block, BlockContext};
use super::{DecoderLayer, Qwen2_5Vl};
use crate::gradients::{Gradients, LinearSums};
use crate::rope::rotary_table;
use crate::{Error, ImageGrid, Result, mrope_positions};

/// Bytes of logits at a time.
const LOGITS_BYTES: usize = 64 << 20;
/// A prompt with answers to it.
#[derive(Clone)]
pub struct AnswerGroup<'a> {
    /// Tokens of the prompt, one per merged patch where an image stands.
    pub prompt: &'a [u32],
    /// Features of its images, `[image tokens, hidden]`.
    pub images: Option<Tensor<2>>,
    /// Their patch grids.
    pub grids: &'a [ImageGrid],
    /// Tokens of each answer.
    pub answers: &'a [&'a [u32]],
}

/// Per token of one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnswerLogps {
    /// Log-probability under the softmax of `logits / temperature`.
    pub logp: Vec<f32>,
    /// Entropy of that distribution in nats.
    pub entropy: Vec<f32>,
}

/// What the backward pass needs of a forward pass.
pub struct TrainingPass {
    sequence: Sequence,
    /// Input of every layer and the output of the last; only that without gradients.
    inputs: Vec<Tensor<2>>,
    /// Log-probability, entropy and log-sum-exp of every target: `[targets, 3]`.
    stats: Tensor<2>,
    temperature: f32,
}

/// Where everything of a group stands in its sequence.
struct Sequence {
    tokens: usize,
    prefix: usize,
    context: BlockContext,
    /// Tokens of each answer.
    lengths: Vec<usize>,
    /// Tokens after which the targets come: the prompt's last for every first token of an answer,
    /// then all others, answer by answer.
    sources: Vec<i32>,
    /// The token to predict there.
    targets: Vec<i32>,
    /// Place and id of every token that was looked up in the table.
    looked_up: Vec<[usize; 2]>,
    /// Places of the features of images.
    image_places: Vec<i32>,
}

impl Sequence {
    /// How many targets are the first of their answer.
    fn n_first(&self) -> usize {
        self.lengths.iter().filter(|n| **n > 0).count()
    }

    /// Values of all targets, put into answers.
    fn by_answer(&self, value: impl Fn(usize) -> f32) -> Vec<Vec<f32>> {
        let (mut first, mut rest) = (0, self.n_first());
        let answer = |&length: &usize| {
            let mut values = Vec::with_capacity(length);
            if length > 0 {
                values.push(value(first));
                first += 1;
                values.extend((rest..rest + length - 1).map(&value));
                rest += length - 1;
            }
            values
        };
        self.lengths.iter().map(answer).collect()
    }

    /// Values by answer in the order of the targets.
    fn by_target(&self, answers: &[Vec<f32>]) -> Result<Vec<f32>> {
        let lengths: Vec<usize> = answers.iter().map(Vec::len).collect();
        if lengths != self.lengths {
            let reason =
                format!("gradients for {lengths:?} tokens, answers have {:?}", self.lengths);
            return Err(Error::Training { reason });
        }
        let first = answers.iter().filter_map(|values| values.first());
        let rest = answers.iter().flat_map(|values| values.iter().skip(1));
        Ok(first.chain(rest).copied().collect())
    }
}

impl Qwen2_5Vl {
    /// Log-probabilities of the answers, with the adapters that are switched on; `keep` keeps what
    /// [`Qwen2_5Vl::backward`] needs.
    ///
    /// # Errors
    /// [`Error`] if ids and images do not fit together, [`Error::Training`] for a model with
    /// sliding windows shorter than the sequence.
    pub fn forward(
        &self,
        group: &AnswerGroup,
        temperature: f32,
        keep: bool,
    ) -> Result<TrainingPass> {
        let sequence = self.sequence(group)?;
        let mut x = self.embed_group(group)?;
        let mut inputs = Vec::new();
        for layer in &self.model.layers {
            if keep {
                inputs.push(x.clone());
            }
            x = layer.block().activations(x, &sequence.context)?.out;
        }
        inputs.push(x.clone());
        let mut stats = Vec::new();
        for rows in self.head_rows(&sequence) {
            let (_, logits, targets) = self.logits(&x, &sequence, rows)?;
            stats.push(logp_gather(logits, targets, temperature)?);
        }
        let stats = match stats.len() {
            0 => zeros([0, 3], &self.device),
            _ => Tensor::cat(stats, 0),
        };
        Ok(TrainingPass { sequence, inputs, stats, temperature })
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
            dx = layer.block().backward(x, dx, &sequence.context, self.layer_sums(sum, i))?;
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

    /// Where prompt and answers stand.
    fn sequence(&self, group: &AnswerGroup) -> Result<Sequence> {
        let (cfg, device) = (&self.config, &self.device);
        let (vocab_size, prefix) = (cfg.text.vocab_size, group.prompt.len());
        let mut ids = group.prompt.iter().chain(group.answers.iter().copied().flatten());
        if let Some(&id) = ids.find(|id| **id as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { id, vocab_size });
        }
        let merge = cfg.vision.spatial_merge_size;
        let of_prompt = mrope_positions(group.prompt, cfg.image_token_id, group.grids, merge)?;
        let mut axes = of_prompt.axes;
        let mut ranges: Vec<[i32; 2]> = (0..prefix as i32).map(|t| [0, t + 1]).collect();
        let mut sources = Vec::new();
        let mut targets = Vec::new();
        let longest = group.answers.iter().map(|answer| answer.len()).max().unwrap_or(0);
        for answer in group.answers.iter().filter(|answer| !answer.is_empty()) {
            sources.push(prefix as i32 - 1);
            targets.push(answer[0] as i32);
        }
        for answer in group.answers {
            let start = ranges.len() as i32;
            // The last token is predicted, never read.
            for (t, next) in (0..).zip(answer.iter().skip(1)) {
                let position = prefix as i32 + t + of_prompt.delta;
                axes.iter_mut().for_each(|axis| axis.push(position));
                ranges.push([start, start + t + 1]);
                sources.push(start + t);
                targets.push(*next as i32);
            }
        }
        let tokens = ranges.len();
        self.check_windows(tokens)?;
        let key_ranges = key_ranges(&ranges, prefix, tokens);
        let index =
            |pairs: Vec<[i32; 2]>| tensor_i32(pairs.as_flattened().to_vec(), [tokens, 2], device);
        let read = group.answers.iter().flat_map(|a| &a[..a.len().saturating_sub(1)]);
        let ids = group.prompt.iter().chain(read).map(|id| *id as usize).enumerate();
        let is_image =
            |place: usize, id: usize| place < prefix && id == cfg.image_token_id as usize;
        let (images, looked_up): (Vec<_>, Vec<_>) =
            ids.map(|(place, id)| [place, id]).partition(|[place, id]| is_image(*place, *id));
        let head_dim = cfg.text.head_dim();
        // An image spans at least as many tokens as positions, so none lies past these.
        let (theta, n_positions) = (cfg.text.rope_theta(), prefix + longest);
        let context = BlockContext {
            rotary_table: rotary_table(n_positions, head_dim / 2, head_dim, theta, device),
            positions: tensor_i32(axes.concat(), [3, tokens], device),
            slots: tensor_i32((0..tokens as i32).collect(), [tokens], device),
            ranges: index(ranges),
            key_ranges: index(key_ranges),
            prefix,
            n_heads: self.heads.n_heads,
            n_kv_heads: self.heads.n_kv_heads,
            head_dim,
            sections: self.heads.sections.clone(),
        };
        Ok(Sequence {
            tokens,
            prefix,
            context,
            lengths: group.answers.iter().map(|answer| answer.len()).collect(),
            sources,
            targets,
            looked_up,
            image_places: images.iter().map(|[place, _]| *place as i32).collect(),
        })
    }

    fn check_windows(&self, tokens: usize) -> Result<()> {
        let cfg = &self.config.text;
        let windows = (0..cfg.num_hidden_layers).filter_map(|i| cfg.window_of(i));
        match windows.min() {
            Some(window) if window < tokens => {
                let reason = format!(
                    "sliding windows of {window} tokens, the prompt with its answers has {tokens}; \
                     lower rollout.max_tokens, rollout.group_size or model.max_pixels"
                );
                Err(Error::Training { reason })
            }
            _ => Ok(()),
        }
    }

    /// Embeddings of the sequence: `[tokens, hidden]`.
    fn embed_group(&self, group: &AnswerGroup) -> Result<Tensor<2>> {
        let prompt = self.embed_prompt(group.prompt, group.images.clone())?;
        let read = group.answers.iter().flat_map(|a| &a[..a.len().saturating_sub(1)]);
        let ids: Vec<i32> = read.map(|id| *id as i32).collect();
        if ids.is_empty() {
            return Ok(prompt);
        }
        let n = ids.len();
        let answers = self.model.embed_tokens.forward(tensor_i32(ids, [n], &self.device));
        Ok(Tensor::cat(vec![prompt, answers], 0))
    }

    /// Targets whose logits are computed at once.
    fn head_rows(&self, sequence: &Sequence) -> Vec<Range<usize>> {
        let n = sequence.targets.len();
        let step = (LOGITS_BYTES / size_of::<f32>() / self.config.text.vocab_size).clamp(1, 256);
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
            let dlogits = logp_gather_backward(logits, targets, stats, dlogp, pass.temperature)?;
            let head = LinearSums { weight: sum.weight(places.head), ..LinearSums::default() };
            let dnormed = self.lm_head.backward(normed, dlogits, head)?;
            parts.push(self.model.norm.backward(x, dnormed, None, sum.weight(places.norm))?);
        }
        let all = Tensor::cat(parts, 0); // [targets, hidden]
        let (n, n_first) = (sequence.targets.len(), sequence.n_first());
        // All first tokens come after the same token of the prompt.
        let first = all.clone().slice([0..n_first, 0..hidden]).sum_dim(0);
        let dx = zeros([sequence.tokens, hidden], device);
        let last = tensor_i32(vec![sequence.prefix as i32 - 1], [1], device);
        let dx = scatter_rows(dx, first, last)?;
        if n == n_first {
            return Ok(dx);
        }
        let rest = all.slice([n_first..n, 0..hidden]);
        let places = sequence.sources[n_first..].to_vec();
        Ok(scatter_rows(dx, rest, tensor_i32(places, [n - n_first], device))?)
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
