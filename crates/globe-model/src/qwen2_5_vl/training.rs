//! The training pass: log-probabilities of given answers, and gradients of the adapters.
//!
//! Answers to one prompt lie behind it in one sequence, `[prompt | answer | answer ...]`, and each
//! sees the prompt and itself: photo and prompt are computed once for all of them. Of the forward
//! pass only the input of every layer is kept; the backward pass computes one layer's activations
//! again at a time. The head runs over some rows at a time, so no `[tokens, vocab]` tensor exists.

use std::collections::BTreeSet;
use std::ops::Range;

use globe_format::packed::TensorSpec;
use globe_ops::{
    Compute, Device, Int, SavedAttention, Tensor, attention_backward, attention_with_lse,
    gather_rows, key_ranges, logp_gather, logp_gather_backward, read_f32, rotary_split,
    rotary_split_backward, scatter_rows, swiglu, swiglu_backward, tensor_f32, tensor_i32, zeros,
};

use super::{DecoderLayer, Qwen2_5Vl, scale};
use crate::cache::Heads;
use crate::layers::Linear;
use crate::lora::{Lora, LoraGradient, module_name};
use crate::rope::rotary_table;
use crate::{
    Config, Error, ImageGrid, LoraGradients, LoraModules, LoraParameters, LoraSet, LoraShape,
    Result, mrope_positions,
};

/// Bytes of logits at a time.
const LOGITS_BYTES: usize = 64 << 20;
/// Fused matrices of a layer that can have an adapter.
const MATRICES: [&str; 4] = ["self_attn.qkv", "self_attn.o_proj", "mlp.gate_up", "mlp.down_proj"];

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
    positions: Tensor<2, Int>,  // [3, tokens]
    ranges: Tensor<2, Int>,     // [tokens, 2], keys of each query besides the prefix
    key_ranges: Tensor<2, Int>, // [tokens, 2], queries of each key
    slots: Tensor<1, Int>,      // [tokens], each in its own place
    rotary_table: Tensor<2>,
    /// Tokens of each answer.
    lengths: Vec<usize>,
    /// Tokens after which the targets come: the prompt's last for every first token of an answer,
    /// then all others, answer by answer.
    sources: Vec<i32>,
    /// The token to predict there.
    targets: Vec<i32>,
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

/// What every layer reads besides its input.
struct Context<'a> {
    sequence: &'a Sequence,
    heads: &'a Heads,
    device: Device,
}

/// Activations of one layer.
struct Activations {
    x_normed: Tensor<2>, // [tokens, hidden]
    q: Tensor<3>,        // [tokens, n_heads, head_dim]
    k: Tensor<3>,        // [tokens, n_kv_heads, head_dim]
    v: Tensor<3>,        // as k
    y: Tensor<3>,        // as q
    lse: Tensor<2>,      // [tokens, n_heads]
    x_mid: Tensor<2>,    // [tokens, hidden], after the attention
    mid_normed: Tensor<2>,
    gate_up: Tensor<2>, // [tokens, 2 * intermediate]
    gated: Tensor<2>,   // [tokens, intermediate]
    out: Tensor<2>,     // [tokens, hidden]
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
        let context = self.context(&sequence);
        let mut x = self.embed_group(group)?;
        let mut inputs = Vec::new();
        for layer in &self.model.layers {
            if keep {
                inputs.push(x.clone());
            }
            x = layer.activations(x, &context)?.out;
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

    /// Adds the gradients of the adapters to `sum`. `dlogp`: the derivative of the loss by the
    /// log-probability of every token of every answer.
    ///
    /// # Errors
    /// [`Error::Training`] if the pass was not kept or `dlogp` has other lengths.
    pub fn backward(
        &self,
        mut pass: TrainingPass,
        dlogp: &[Vec<f32>],
        sum: &mut LoraGradients,
    ) -> Result<()> {
        if pass.inputs.len() != self.model.layers.len() + 1 {
            let reason = "the forward pass kept nothing for a backward pass".into();
            return Err(Error::Training { reason });
        }
        let dlogp = pass.sequence.by_target(dlogp)?;
        if dlogp.is_empty() {
            return Ok(());
        }
        let Some(x) = pass.inputs.pop() else { return Ok(()) };
        let mut dx = self.head_backward(x, &pass, dlogp)?;
        let context = self.context(&pass.sequence);
        for (i, layer) in self.model.layers.iter().enumerate().rev() {
            let Some(x) = pass.inputs.pop() else { break };
            let sums = &mut sum.0[MATRICES.len() * i..MATRICES.len() * (i + 1)];
            dx = layer.backward(x, dx, &context, sums)?;
        }
        Ok(())
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
        let head_dim = cfg.text.head_dim();
        // An image spans at least as many tokens as positions, so none lies past these.
        let (theta, n_positions) = (cfg.text.rope_theta(), prefix + longest);
        Ok(Sequence {
            tokens,
            prefix,
            positions: tensor_i32(axes.concat(), [3, tokens], device),
            ranges: index(ranges),
            key_ranges: index(key_ranges),
            slots: tensor_i32((0..tokens as i32).collect(), [tokens], device),
            rotary_table: rotary_table(n_positions, head_dim / 2, head_dim, theta, device),
            lengths: group.answers.iter().map(|answer| answer.len()).collect(),
            sources,
            targets,
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

    fn context<'a>(&'a self, sequence: &'a Sequence) -> Context<'a> {
        Context { sequence, heads: &self.heads, device: self.device.clone() }
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

    /// Residual stream, logits and targets of some rows.
    fn logits(
        &self,
        x: &Tensor<2>,
        sequence: &Sequence,
        rows: Range<usize>,
    ) -> Result<(Tensor<2>, Tensor<2>, Tensor<1, Int>)> {
        let index =
            |all: &[i32]| tensor_i32(all[rows.clone()].to_vec(), [rows.len()], &self.device);
        let x = gather_rows(x, index(&sequence.sources)); // [rows, hidden]
        let logits = self.lm_head.forward(self.model.norm.forward(x.clone())?)?;
        Ok((x, logits, index(&sequence.targets)))
    }

    /// Gradient of the residual stream after the last layer: `[tokens, hidden]`.
    fn head_backward(
        &self,
        x: Tensor<2>,
        pass: &TrainingPass,
        dlogp: Vec<f32>,
    ) -> Result<Tensor<2>> {
        let (sequence, device) = (&pass.sequence, &self.device);
        let [_, hidden] = x.dims();
        let mut parts = Vec::new();
        for rows in self.head_rows(sequence) {
            let n = rows.len();
            let (x, logits, targets) = self.logits(&x, sequence, rows.clone())?;
            let stats = pass.stats.clone().slice([rows.clone(), 0..3]);
            let dlogp = tensor_f32(dlogp[rows].to_vec(), [n], device);
            let dlogits = logp_gather_backward(logits, targets, stats, dlogp, pass.temperature)?;
            let dnormed = self.lm_head.backward(x.clone(), dlogits, None)?;
            parts.push(self.model.norm.backward(x, dnormed, None)?);
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

    /// Pairs for every module in `found`.
    ///
    /// # Errors
    /// [`Error::Adapter`] if a module has another size, [`Error::NoModule`] if there is none.
    pub fn lora_set(
        &self,
        shape: LoraShape,
        found: &LoraModules,
        compute: &Compute,
    ) -> Result<LoraSet> {
        let specs = Self::packed_specs(&self.config);
        let mut unknown: BTreeSet<&String> = found.keys().collect();
        let mut pairs = Vec::new();
        for spec in adapted(&specs) {
            for source in &spec.sources {
                unknown.retain(|module| *module != module_name(&source.name));
            }
            pairs.push(Lora::new(spec, shape, found, compute)?);
        }
        match unknown.first() {
            Some(module) => Err(Error::NoModule { module: module.to_string() }),
            None => Ok(LoraSet(pairs)),
        }
    }

    /// Puts the pairs onto the model and takes those that were there.
    ///
    /// # Errors
    /// [`Error::Training`] for the pairs of another model.
    pub fn swap_lora(&mut self, set: &mut LoraSet) -> Result<()> {
        let n = self.matrices_mut().count();
        if set.0.len() != n {
            let reason = format!("{} pairs for {n} matrices", set.0.len());
            return Err(Error::Training { reason });
        }
        for (linear, pair) in self.matrices_mut().zip(&mut set.0) {
            std::mem::swap(&mut linear.lora, pair);
        }
        Ok(())
    }

    /// Modules that can have an adapter, with outputs and inputs.
    pub fn lora_modules(config: &Config) -> Vec<(String, [usize; 2])> {
        let specs = Self::packed_specs(config);
        let sources = adapted(&specs).flat_map(|spec| &spec.sources);
        sources.map(|s| (module_name(&s.name).to_owned(), [s.rows, s.cols])).collect()
    }

    /// Switches all pairs on or off; without them the model is the one it was before training.
    pub fn switch_lora(&mut self, on: bool) {
        self.lora_parameters().0.iter_mut().for_each(|pair| pair.on = on);
    }

    /// The matrices of the language model that can have an adapter, as [`adapted`] orders them.
    fn matrices_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.model.layers.iter_mut().flat_map(|layer| {
            let mlp = &mut layer.mlp;
            [&mut layer.qkv, &mut layer.o_proj, &mut mlp.gate_up, &mut mlp.down_proj]
        })
    }

    /// Zero gradients of all adapters.
    pub fn lora_gradients(&self) -> LoraGradients {
        let pairs = self.model.layers.iter().flat_map(|layer| {
            let mlp = &layer.mlp;
            [&layer.qkv, &layer.o_proj, &mlp.gate_up, &mlp.down_proj].map(|l| l.lora.as_ref())
        });
        LoraGradients::new(pairs)
    }

    /// The adapters.
    pub fn lora_parameters(&mut self) -> LoraParameters<'_> {
        LoraParameters(self.matrices_mut().filter_map(|linear| linear.lora.as_mut()).collect())
    }
}

/// The fused matrices that can have an adapter: four of each layer.
fn adapted(specs: &[TensorSpec]) -> impl Iterator<Item = &TensorSpec> {
    specs.iter().filter(|spec| {
        let name = module_name(&spec.name);
        name.starts_with("model.layers.") && MATRICES.iter().any(|m| name.ends_with(m))
    })
}

impl DecoderLayer {
    /// The layer on a whole sequence: `x: [tokens, hidden]`.
    fn activations(&self, x: Tensor<2>, context: &Context) -> Result<Activations> {
        let Context { sequence, heads, device } = context;
        let tokens = sequence.tokens;
        let x_normed = self.input_layernorm.forward(x.clone())?;
        let qkv = self.qkv.forward(x_normed.clone())?;
        let buffer = || zeros([tokens, heads.n_kv_heads, heads.head_dim], device);
        let (table, positions) = (&sequence.rotary_table, &sequence.positions);
        let (n_heads, sections) = (heads.n_heads, &heads.sections[..]);
        let slots = &sequence.slots;
        let (q, k, v) =
            rotary_split(qkv, table, positions, slots, buffer(), buffer(), n_heads, sections)?;
        let (y, lse) = attention_with_lse(
            q.clone(),
            k.clone(),
            v.clone(),
            &sequence.ranges,
            sequence.prefix,
            scale(heads),
        )?;
        let flat = y.clone().reshape([tokens, heads.n_heads * heads.head_dim]);
        let x_mid = self.o_proj.forward_add(flat, x)?;
        let mid_normed = self.post_attention_layernorm.forward(x_mid.clone())?;
        let gate_up = self.mlp.gate_up.forward(mid_normed.clone())?;
        let gated = swiglu(gate_up.clone())?;
        let out = self.mlp.down_proj.forward_add(gated.clone(), x_mid.clone())?;
        Ok(Activations { x_normed, q, k, v, y, lse, x_mid, mid_normed, gate_up, gated, out })
    }

    /// Gradient of the input from that of the output; the layer runs again for its activations.
    fn backward(
        &self,
        x: Tensor<2>,
        dx_out: Tensor<2>,
        context: &Context,
        sums: &mut [Option<LoraGradient>],
    ) -> Result<Tensor<2>> {
        let Context { sequence, heads, .. } = context;
        let saved = self.activations(x.clone(), context)?;
        let [qkv_sum, o_sum, gate_up_sum, down_sum] = sums else {
            let reason = "gradients of another model".into();
            return Err(Error::Training { reason });
        };
        let mlp = &self.mlp;
        let dgated = mlp.down_proj.backward(saved.gated, dx_out.clone(), down_sum.as_mut())?;
        let dgate_up = swiglu_backward(saved.gate_up, dgated)?;
        let dnormed = mlp.gate_up.backward(saved.mid_normed, dgate_up, gate_up_sum.as_mut())?;
        let dmid = self.post_attention_layernorm.backward(saved.x_mid, dnormed, Some(dx_out))?;

        let (tokens, width) = (sequence.tokens, heads.n_heads * heads.head_dim);
        let flat = saved.y.clone().reshape([tokens, width]);
        let dy = self.o_proj.backward(flat, dmid.clone(), o_sum.as_mut())?;
        let dy = dy.reshape([tokens, heads.n_heads, heads.head_dim]);
        let attention = SavedAttention {
            q: saved.q,
            k: saved.k,
            v: saved.v,
            y: saved.y,
            lse: saved.lse,
            ranges: sequence.ranges.clone(),
            prefix: sequence.prefix,
            scale: scale(heads),
        };
        let (dq, dk, dv) = attention_backward(attention, dy, &sequence.key_ranges)?;
        let (table, positions) = (&sequence.rotary_table, &sequence.positions);
        let dqkv = rotary_split_backward(dq, dk, dv, table, positions, &heads.sections)?;
        let dnormed = self.qkv.backward(saved.x_normed, dqkv, qkv_sum.as_mut())?;
        self.input_layernorm.backward(x, dnormed, Some(dmid))
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
