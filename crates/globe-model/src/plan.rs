//! Bytes that a model takes on the device and on the host, known before a weight is read.
//!
//! A plan counts buffers that live at the same time, in the order in which the model files make
//! and drop them; [`MemoryPlan`] has the formulae. Weights and cache are exact, the work is its
//! largest moment, and pages are an upper bound. What a driver needs for itself is not in it.

use globe_format::packed::{Class, MANIFEST_FILE, Manifest, TensorSpec};
use globe_format::{Files, Source, read_file};
use globe_ops::{BLOCK, KvFormat, PackedMatrix, WeightFormat, sample_scratch, step_scratch_bytes};
use serde::Serialize;
use serde_json::Value;

use crate::weights::{Noise, Store, kernel_format, packed_bytes, part_rows};
use crate::{Config, Error, Qwen2_5Vl, Result, TextConfig, VisionConfig};

/// Bytes of one activation or index.
const F32: u64 = 4;
/// On the heap besides the largest buffer while weights are read: raw and converted values of a
/// chunk, pieces of a packed folder, small tensors, tokenizer.
const HOST_CHUNKS: u64 = 16 << 20;
/// What a page has beyond the buffer that it was made for.
const PAGE_SLACK: u64 = 1 << 20;
/// The page of buffers of at most 64 KiB.
const SMALL_PAGE: u64 = 8 << 20;

/// Bytes of the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WeightPlan {
    /// Of the language model, on the device.
    pub text: u64,
    /// Of the vision tower, on the device.
    pub vision: u64,
    /// The largest buffer among them.
    pub largest: u64,
    /// Whether they are on the host by pieces alone while they are loaded: those of a packed folder, for the kernels
    /// that take them as they are.
    pub in_pieces: bool,
}

/// What a model is asked to do at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Patches of the photos of one prompt.
    pub patches: usize,
    /// Tokens of the prompt, those of photos included.
    pub prompt: usize,
    /// The cache has room for a prompt of a multiple of so many tokens; 0 is as good as 1.
    pub bucket: usize,
    /// Answers at once.
    pub answers: usize,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Whether tokens seen before count, which keeps a word per token of the vocabulary and answer.
    pub penalties: bool,
    /// How keys and values are stored.
    pub kv: KvFormat,
}

impl Workload {
    /// Tokens that the cache has room for before the answers.
    fn prompt_room(&self) -> usize {
        self.prompt.next_multiple_of(self.bucket.max(1))
    }
}

/// Bytes by part. With P patches, I = P / merge² image tokens, T tokens of the prompt, R answers of
/// N tokens, V the vocabulary; H hidden, F feed-forward (whole blocks), Q and K the widths of all
/// query and all key heads; h, f the widths of the tower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// Weights: words and scales of every block of 32, f32 for norms and biases.
    pub weights: u64,
    /// The vision tower's share of them.
    pub vision_weights: u64,
    /// Keys and values, `4 · 2 · layers · K · (T + R·N)` with T filled up to whole buckets, half of it in
    /// 16 bits, and the table of angles.
    pub cache: u64,
    /// Features of the photos, `4 · I · H`.
    pub features: u64,
    /// The tower at work: `4 · P · max(7h, 2h + f, two copies of the patches)` and its indices.
    pub vision: u64,
    /// The prompt at work, one layer at a time: `4 · T · max(H + 2Q + 2K + Q, 2H + F)`, then `4 · V`.
    pub prefill: u64,
    /// Answers at work: state, history and counts, `4 · R · (2N + V if penalties)`, and everything
    /// that one recorded step writes.
    pub decode: u64,
    /// What pages leave empty: memory comes from the driver in pages a MiB larger than the largest
    /// buffer so far, and two of them and one of 8 MiB for small buffers may be nearly empty.
    pub pages: u64,
    /// Host memory while weights are loaded: pieces of a packed folder; otherwise the largest buffer twice, once as it
    /// is put together and once on its way to the device.
    pub host_load: u64,
    /// The largest single buffer.
    pub largest_buffer: u64,
}

impl MemoryPlan {
    /// Device bytes at the largest moment. Features stay while the next photo is encoded.
    pub fn device_bytes(&self) -> u64 {
        self.weights + self.work_bytes() + self.pages
    }

    /// The largest moment besides weights and what pages leave empty.
    pub fn work_bytes(&self) -> u64 {
        let answering = self.cache + self.prefill.max(self.decode);
        self.features + self.vision.max(answering)
    }

    /// Device bytes of a photo that is encoded while the cache and the recorded steps of the one before
    /// are `kept` bytes.
    pub fn encoding_bytes(&self, kept: u64) -> u64 {
        self.weights + self.features + self.vision + kept + self.pages
    }

    /// Errors unless it fits into `budget` bytes.
    ///
    /// # Errors
    /// [`Error::OverBudget`] with every part.
    pub fn check(&self, budget: u64) -> Result<()> {
        if self.device_bytes() <= budget {
            return Ok(());
        }
        Err(Error::OverBudget { plan: Box::new(*self), budget })
    }
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            ("weights", self.weights),
            ("cache", self.cache),
            ("features", self.features),
            ("vision", self.vision),
            ("prefill", self.prefill),
            ("decode", self.decode),
            ("pages", self.pages),
        ];
        let parts = parts.map(|(name, bytes)| format!("{name} {}", mib(bytes)));
        f.write_str(&parts.join(", "))
    }
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl WeightPlan {
    /// Of a model folder. Reads the manifest, or the headers of a checkpoint; where headers cannot
    /// be read, the number format that `config.json` names decides. `dense` is f32 throughout: the
    /// CPU path and the reference kernels.
    ///
    /// # Errors
    /// [`Error::Format`] if the manifest is damaged.
    pub async fn of_folder<F: Files>(files: &F, config: &Config, dense: bool) -> Result<Self> {
        let specs = Qwen2_5Vl::packed_specs(config);
        if let Some(json) = read_file(files, MANIFEST_FILE).await? {
            let manifest = Manifest::parse(&json)?;
            return Ok(Self::of_packed(&specs, dense, &manifest));
        }
        match crate::model::open_checkpoint(files, config).await {
            Ok(checkpoint) => Ok(Self::of(&specs, dense, |spec| packed_bytes(&checkpoint, spec))),
            // Loading will say what is wrong with them.
            Err(_) => {
                let json = read_file(files, "config.json").await?.unwrap_or_default();
                let format = declared_format(&json);
                Ok(Self::of(&specs, dense, |spec| in_format(spec, format)))
            }
        }
    }

    /// Of a model of noise: `bits` per weight of the language model, `vision_bits` of the tower.
    ///
    /// # Errors
    /// [`Error::Config`] for bits that no format has.
    pub fn random(config: &Config, bits: u32, vision_bits: u32) -> Result<Self> {
        let noise = Noise::new(bits, vision_bits)?;
        let specs = Qwen2_5Vl::packed_specs(config);
        Ok(Self::of(&specs, false, |spec| in_noise(spec, noise)))
    }

    /// Of opened weights.
    pub(crate) fn of_store<'a, S: Source>(
        store: &Store<S>,
        specs: impl IntoIterator<Item = &'a TensorSpec>,
        dense: bool,
    ) -> Self {
        match store {
            Store::Checkpoint(checkpoint) => {
                Self::of(specs, dense, |spec| packed_bytes(checkpoint, spec))
            }
            Store::Packed(packed) => Self::of_packed(specs, dense, packed.manifest()),
            Store::Random(noise) => Self::of(specs, dense, |spec| in_noise(spec, *noise)),
        }
    }

    fn of_packed<'a>(
        specs: impl IntoIterator<Item = &'a TensorSpec>,
        dense: bool,
        manifest: &Manifest,
    ) -> Self {
        let plan = Self::of(specs, dense, |spec| in_manifest(manifest, spec));
        Self { in_pieces: !dense, ..plan }
    }

    /// Of weights that training changes: f32 throughout. `dense` as in [`WeightPlan::of_folder`].
    pub fn trained<'a>(specs: impl IntoIterator<Item = &'a TensorSpec>, dense: bool) -> Self {
        Self::of(specs, dense, |spec| in_format(spec, WeightFormat::F32))
    }

    /// `packed`: bytes of a tensor for the fast kernels.
    fn of<'a>(
        specs: impl IntoIterator<Item = &'a TensorSpec>,
        dense: bool,
        packed: impl Fn(&TensorSpec) -> u64,
    ) -> Self {
        let mut plan = Self::default();
        for spec in specs {
            let bytes = if dense { F32 * product([spec.rows, spec.cols]) } else { packed(spec) };
            let row_bytes = (bytes / spec.rows.max(1) as u64).max(1) as usize;
            let part = match dense {
                true => bytes,
                false => product([part_rows(u64::MAX, row_bytes), row_bytes]),
            };
            plan.largest = plan.largest.max(bytes.min(part));
            match spec.name.starts_with("visual.") {
                true => plan.vision += bytes,
                false => plan.text += bytes,
            }
        }
        plan
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.text + self.vision
    }

    /// The whole plan of a model with these weights.
    pub fn plan(&self, config: &Config, work: &Workload) -> MemoryPlan {
        let (text, vision) = (&config.text, &config.vision);
        let image_tokens = work.patches / vision.merge_area().max(1);
        let features = F32 * product([image_tokens, text.hidden_size]);
        let slots = work.prompt_room() as u64 + product([work.answers, work.max_tokens]);
        let keys = F32 * slots * product([text.n_kv_heads(), work.kv.words(text.head_dim())]);
        let angles = F32 * product([work.prompt_room() + work.max_tokens, text.head_dim()]);
        let largest = self.largest.max(keys).max(features).max(largest_activation(config, work));
        MemoryPlan {
            weights: self.total(),
            vision_weights: self.vision,
            cache: 2 * text.num_hidden_layers as u64 * keys + angles,
            features,
            vision: vision_bytes(vision, work.patches),
            prefill: prefill_bytes(text, work.prompt),
            decode: decode_bytes(text, work),
            host_load: HOST_CHUNKS + if self.in_pieces { 0 } else { 2 * self.largest },
            pages: SMALL_PAGE + 2 * (largest + PAGE_SLACK),
            largest_buffer: largest,
        }
    }
}

/// The format that `config.json` names, else that of published checkpoints.
fn declared_format(json: &[u8]) -> WeightFormat {
    let json: Value = serde_json::from_slice(json).unwrap_or_default();
    let text = &json["text_config"];
    let named = [&json["dtype"], &json["torch_dtype"], &text["dtype"], &text["torch_dtype"]];
    match named.iter().find_map(|value| value.as_str()) {
        Some("float32") => WeightFormat::F32,
        Some("float16") => WeightFormat::F16,
        _ => WeightFormat::Bf16,
    }
}

fn in_manifest(manifest: &Manifest, spec: &TensorSpec) -> u64 {
    let stored = manifest.tensors.iter().find(|tensor| tensor.name == spec.name);
    stored.map_or(0, |tensor| tensor.size_bytes())
}

fn in_noise(spec: &TensorSpec, noise: Noise) -> u64 {
    in_format(spec, kernel_format(spec.format(noise.text, noise.vision)))
}

fn in_format(spec: &TensorSpec, format: WeightFormat) -> u64 {
    if spec.class == Class::Vector {
        return F32 * spec.rows as u64;
    }
    let words = PackedMatrix::row_bytes(format, spec.cols);
    product([spec.rows, words + PackedMatrix::row_scale_bytes(format, spec.cols)])
}

/// In 64 bits: what a model takes is beyond the `usize` of a browser.
fn product<const N: usize>(factors: [usize; N]) -> u64 {
    factors.into_iter().map(|factor| factor as u64).product()
}

/// Columns of the copy with whole blocks that a product makes of `n` columns; none if they are.
fn widened(n: usize) -> usize {
    if n.is_multiple_of(BLOCK) { 0 } else { n.next_multiple_of(BLOCK) }
}

/// Floats per token at the largest moment of one block: `x` and what stands beside it.
/// `h`: residual stream, `q`: all query heads, `k`: all key heads, `f`: feed-forward,
/// `buffers`: whether keys and values get buffers of their own.
fn block_floats(h: usize, q: usize, k: usize, f: usize, buffers: bool) -> usize {
    let qkv = q + 2 * k;
    let own = if buffers { 2 * k } else { 0 };
    [
        h + h + widened(h) + qkv, // norm and projection
        h + qkv + own + q,        // heads split and turned
        h + q + own + q,          // attention
        h + q + widened(q) + h,   // its projection
        h + h + widened(h) + f,   // norm, gate and up
        h + f + h,                // down
    ]
    .into_iter()
    .max()
    .unwrap_or(0)
}

/// The largest buffer that a kernel writes, or that a photo arrives in.
fn largest_activation(config: &Config, work: &Workload) -> u64 {
    let (text, vision) = (&config.text, &config.vision);
    let block = |h: usize, qkv: usize, f: usize| h.max(qkv).max(f.next_multiple_of(BLOCK));
    let (h, values) = (vision.hidden_size, vision.patch_values());
    let patch = block(h, 3 * h, vision.intermediate_size).max(values.max(widened(values)));
    let qkv = (text.num_attention_heads + 2 * text.n_kv_heads()) * text.head_dim();
    let token = block(text.hidden_size, qkv, text.intermediate_size);
    let rows = product([work.answers.max(1), text.vocab_size]);
    F32 * product([work.patches, patch]).max(product([work.prompt, token])).max(rows)
}

fn vision_bytes(cfg: &VisionConfig, patches: usize) -> u64 {
    let (h, values) = (cfg.hidden_size, cfg.patch_values());
    let f = cfg.intermediate_size.next_multiple_of(BLOCK);
    let embed = if widened(values) == 0 { values + h } else { 2 * widened(values) };
    let floats = block_floats(h, h, h, f, true).max(embed).max(2 * h);
    // Order, positions, slots, ranges of windows and frames; the order is dropped early.
    let indices = 1 + 2 + 1 + 2 + 2;
    F32 * product([patches, floats + indices])
}

fn prefill_bytes(cfg: &TextConfig, tokens: usize) -> u64 {
    let (q, k) = (cfg.num_attention_heads * cfg.head_dim(), cfg.n_kv_heads() * cfg.head_dim());
    let f = cfg.intermediate_size.next_multiple_of(BLOCK);
    let floats = block_floats(cfg.hidden_size, q, k, f, false);
    // Positions on three axes, slots, ranges.
    let layers = product([tokens, floats + 3 + 1 + 2]);
    let head = product([tokens + 2, cfg.hidden_size]) + cfg.vocab_size as u64;
    F32 * layers.max(head)
}

fn decode_bytes(cfg: &TextConfig, work: &Workload) -> u64 {
    let (rows, vocab) = (work.answers, cfg.vocab_size);
    let (heads, head_dim) = (cfg.num_attention_heads, cfg.head_dim());
    let seen = if work.penalties { vocab } else { 0 };
    // Token, probability, places, positions, slot, draws; token and probability of every step.
    let state = product([rows, 1 + 1 + 4 + 3 + 1 + 2 + 2 * work.max_tokens + 1 + seen]);
    let (q, k) = (heads * head_dim, cfg.n_kv_heads() * head_dim);
    let f = cfg.intermediate_size.next_multiple_of(BLOCK);
    let block = block_floats(cfg.hidden_size, q, k, f, false);
    let attention = step_scratch_bytes(rows, heads, head_dim, work.prompt_room() + work.max_tokens);
    // Logits after the prompt, those of the first tokens, and those of the recorded step.
    let logits = vocab as u64 + product([rows, vocab.max(block) + sample_scratch(vocab)]);
    F32 * (state + logits) + attention
}
