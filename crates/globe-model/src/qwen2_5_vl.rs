//! Qwen2.5-VL (arXiv 2502.13923): a vision tower with window attention in front of Qwen2.
//!
//! Field names are checkpoint names. Checkpoints: Qwen2.5-VL-3B, 7B, 72B and their fine-tunes,
//! GLOBE-Qwen2.5VL-7B among them.

mod block;
mod parameters;
mod sequence;
mod training;
mod vision_training;

use globe_format::Source;
use globe_ops::{
    BatchState, Compute, Device, Int, KvFormat, RawQueue, SampleOptions, StepAttention, Tensor,
    Variant, advance, attention, attention_step, gather_rows, gelu, rotary_split, sample,
    scatter_rows, tensor_i32, zeros,
};

use crate::cache::{Heads, Place};
use crate::layers::{Embedding, Linear, Mlp, RmsNorm};
use crate::rope::rotary_table;
use crate::weights::{Precision, Store, Weights};
use crate::{
    Cache, Config, Error, ImageGrid, Result, TextConfig, VisionConfig, VisionLayout, WeightPlan,
    mrope_positions,
};

pub use sequence::AnswerGroup;
pub use training::{AnswerLogps, TrainingPass};
pub(crate) use training::{KEPT_ACTIVATION_BYTES, head_rows};
pub use vision_training::VisionPass;

/// Norms of the tower have no field in the configuration.
const VISION_EPS: f32 = 1e-6;

/// A place in the model whose activations a trace can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceStage {
    /// Patches after the embedding, in window order: `[patches, vision hidden]`.
    PatchEmbed,
    /// Residual stream after a block of the tower, in window order: `[patches, vision hidden]`.
    VisionBlock(usize),
    /// Merged tokens, in arrival order: `[tokens, hidden]`.
    Merger,
    /// Residual stream after a layer of the language model: `[tokens, hidden]`.
    TextLayer(usize),
}

/// Receives activations as they are computed; the tensors are not read back unless asked for.
pub type Trace<'a> = dyn FnMut(TraceStage, &Tensor<2>) + 'a;

/// The whole model.
pub struct Qwen2_5Vl {
    config: Config,
    device: Device,
    raw_queue: Option<RawQueue>,
    can_batch: bool,
    kv: KvFormat,
    heads: Heads,
    weights: WeightPlan,
    visual: Option<VisionTower>,
    model: TextModel,
    lm_head: Linear,
}

impl Qwen2_5Vl {
    /// `model_type` in `config.json`.
    pub const ARCHITECTURE: &str = "qwen2_5_vl";

    /// Uploads weights whose names and shapes were checked.
    ///
    /// # Errors
    /// [`Error::Format`] if a tensor is damaged, [`Error::TensorTooLarge`] if one cannot be bound.
    pub(crate) async fn load<S: Source>(
        config: Config,
        store: &Store<S>,
        compute: &Compute,
        precision: Precision,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        if precision == Precision::Trained && matches!(store, Store::Packed(_)) {
            let reason = "all weights are to be trained, those of a packed folder are rounded; use \
                          the folder that it was converted from";
            return Err(Error::Training { reason: reason.into() });
        }
        let w = &Weights::new(store, Self::packed_specs(&config), compute, precision);
        let total = config.vision.depth + config.text.num_hidden_layers;
        let done = config.vision.depth;
        let visual = VisionTower::load(w, &config.vision, &mut |n| progress(n, total)).await?;
        let model = TextModel::load(w, &config.text, &mut |n| progress(done + n, total)).await?;
        let lm_head = if config.tie_word_embeddings {
            Linear::tied(&model.embed_tokens)
        } else {
            Linear::load(w, "lm_head").await?
        };
        let heads = text_heads(&config.text, w.variant());
        // The step kernels read heads four values at a time.
        let can_batch = w.is_packed() && heads.head_dim.is_multiple_of(4);
        let (device, raw_queue) = (compute.device.clone(), compute.raw_queue());
        let (weights, visual) = (w.plan(), Some(visual));
        let kv = KvFormat::F32;
        Ok(Self {
            config,
            device,
            raw_queue,
            can_batch,
            kv,
            heads,
            weights,
            visual,
            model,
            lm_head,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The name that this file uses for a tensor of either published layout.
    pub fn canonical_name(name: &str) -> Option<String> {
        let rest = |prefix: &str, to: &str| Some(format!("{to}{}", name.strip_prefix(prefix)?));
        rest("model.visual.", "visual.").or_else(|| rest("model.language_model.", "model."))
    }

    /// Tensors that may be present and are not read.
    pub fn is_ignored(config: &Config, name: &str) -> bool {
        // Old exports store the frequencies, and tied ones sometimes the head as well.
        name.ends_with("rotary_emb.inv_freq")
            || name.ends_with("rotary_pos_emb.inv_freq")
            || (config.tie_word_embeddings && name == "lm_head.weight")
    }

    /// Every tensor of a checkpoint with this configuration, with its shape.
    pub fn tensor_shapes(config: &Config) -> Vec<(String, Vec<usize>)> {
        let mut shapes = VisionTower::shapes(&config.vision);
        shapes.extend(TextModel::shapes(&config.text));
        if !config.tie_word_embeddings {
            let head = vec![config.text.vocab_size, config.text.hidden_size];
            shapes.push(("lm_head.weight".into(), head));
        }
        shapes
    }

    /// An empty cache for a prompt of `prompt` tokens and `rows` answers of `tail` tokens each.
    pub fn cache(&self, prompt: usize, tail: usize, rows: usize) -> Cache {
        let cfg = &self.config.text;
        let (head_dim, capacity) = (cfg.head_dim(), prompt + tail);
        // An image spans at least as many tokens as positions, so none lies past the capacity.
        let table = rotary_table(capacity, head_dim / 2, head_dim, cfg.rope_theta(), &self.device);
        Cache::new(cfg.num_hidden_layers, &self.heads, self.kv, [prompt, tail, rows], table)
    }

    /// How caches made from now on store keys and values.
    pub(crate) fn set_kv(&mut self, kv: KvFormat) -> Result<()> {
        if kv == KvFormat::F16 && !self.can_batch {
            let reason = "16-bit keys need the fast kernels and heads of whole quads; leave the cache at 32 bits";
            return Err(globe_ops::Error::Device { reason: reason.into() }.into());
        }
        self.kv = kv;
        Ok(())
    }

    /// How caches store keys and values.
    pub(crate) fn kv(&self) -> KvFormat {
        self.kv
    }

    /// Bytes of weights that a step reads.
    pub(crate) fn bytes_per_token(&self) -> u64 {
        let layers: u64 = self.model.layers.iter().map(DecoderLayer::size_bytes).sum();
        layers + self.lm_head.size_bytes()
    }

    /// Bytes of the weights on the device.
    pub(crate) fn weights(&self) -> WeightPlan {
        self.weights
    }

    /// Drops the vision tower.
    pub(crate) fn release_vision(&mut self) {
        self.visual = None;
        self.weights.vision = 0;
    }

    /// Where recorded steps are replayed, if not by CubeCL.
    pub(crate) fn raw_queue(&self) -> Option<&RawQueue> {
        self.raw_queue.as_ref()
    }

    /// Whether [`crate::Batch`] can draw answers of this model.
    pub(crate) fn can_batch(&self) -> bool {
        self.can_batch
    }

    /// Features of the images: `[merged tokens, hidden]`.
    ///
    /// # Errors
    /// [`Error::Grid`], [`Error::VisionReleased`], or [`Error::Ops`] if the patches do not fit the grids.
    pub fn encode_images(
        &self,
        pixel_values: Vec<f32>,
        grids: &[ImageGrid],
        trace: &mut Trace,
    ) -> Result<Tensor<2>> {
        let cfg = &self.config.vision;
        let visual = self.visual.as_ref().ok_or(Error::VisionReleased)?;
        let layout = VisionLayout::new(grids, cfg)?;
        let x = self.patches(pixel_values, &layout)?;
        visual.forward(x, layout, cfg, trace)
    }

    /// Reads a prompt into an empty cache; logits after each of its last `n` tokens,
    /// `[n, vocab_size]`.
    ///
    /// # Errors
    /// [`Error`] if ids, images and cache do not fit together.
    pub fn prefill(
        &self,
        ids: &[u32],
        images: Option<Tensor<2>>,
        grids: &[ImageGrid],
        cache: &mut Cache,
        n: usize,
        trace: &mut Trace,
    ) -> Result<Tensor<2>> {
        let cfg = &self.config;
        let vocab_size = cfg.text.vocab_size;
        if let Some(&id) = ids.iter().find(|id| **id as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { id, vocab_size });
        }
        cache.truncate(0);
        cache.check_room(ids.len())?;
        let merge = cfg.vision.spatial_merge_size;
        let positions = mrope_positions(ids, cfg.image_token_id, grids, merge)?;
        let x = self.embed_prompt(ids, images)?;
        let axes = positions.axes.concat();
        let axes = tensor_i32(axes, [3, ids.len()], &self.device);
        cache.rope_delta = positions.delta;
        let x = self.model.forward(x, axes, cache, &self.heads, &cfg.text, trace)?;
        let last = (ids.len().saturating_sub(n)..ids.len()).map(|i| i as i32).collect::<Vec<_>>();
        let n = last.len();
        let last = tensor_i32(last, [n], &self.device);
        self.lm_head.forward_normed(gather_rows(&x, last), &self.model.norm)
    }

    /// Embeddings of the prompt with the image features in their places: `[tokens, hidden]`.
    fn embed_prompt(&self, ids: &[u32], images: Option<Tensor<2>>) -> Result<Tensor<2>> {
        let image_token = self.config.image_token_id;
        let slots: Vec<i32> =
            (0..ids.len()).filter(|i| ids[*i] == image_token).map(|i| i as i32).collect();
        let from_images = images.as_ref().map_or(0, |features| features.dims()[0]);
        if slots.len() != from_images {
            return Err(Error::ImageTokens { in_prompt: slots.len(), from_images });
        }
        let ids = ids.iter().map(|id| *id as i32).collect::<Vec<_>>();
        let n = ids.len();
        let x = self.model.embed_tokens.forward(tensor_i32(ids, [n], &self.device));
        match images {
            Some(features) => {
                let slots = tensor_i32(slots, [from_images], &self.device);
                Ok(scatter_rows(x, features, slots)?)
            }
            None => Ok(x),
        }
    }

    /// Reads one more token; logits of the token after it, `[1, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::CacheFull`] with both numbers.
    pub fn step(&self, id: Tensor<1, Int>, cache: &mut Cache) -> Result<Tensor<2>> {
        cache.check_room(1)?;
        let x = self.model.embed_tokens.forward(id);
        let position = cache.len() as i32 + cache.rope_delta;
        let axes = tensor_i32(vec![position; 3], [3, 1], &self.device);
        let cfg = &self.config.text;
        let x = self.model.forward(x, axes, cache, &self.heads, cfg, &mut |_, _| {})?;
        self.lm_head.forward_normed(x, &self.model.norm)
    }

    /// One step of every row of a batch, on the device from token to token: reads `state.tokens`,
    /// chooses the next ones and moves the state on. It only launches kernels, so it can be recorded.
    ///
    /// # Errors
    /// [`Error::Ops`] if a head does not fit the kernels, or on the CPU path.
    pub(crate) fn step_batch(
        &self,
        state: &BatchState,
        cache: &Cache,
        options: &SampleOptions,
        stop: &[u32],
    ) -> Result<()> {
        let cfg = &self.config.text;
        let mut x = self.model.embed_tokens.forward(state.tokens.clone());
        for (i, layer) in self.model.layers.iter().enumerate() {
            x = layer.step(x, i, state, cache, &self.heads, cfg)?;
        }
        let logits = self.lm_head.forward_normed(x, &self.model.norm)?;
        sample(logits, state, options)?;
        Ok(advance(state, stop)?)
    }
}

/// Heads of the language model.
fn text_heads(cfg: &TextConfig, variant: Variant) -> Heads {
    Heads {
        n_heads: cfg.num_attention_heads,
        n_kv_heads: cfg.n_kv_heads(),
        head_dim: cfg.head_dim(),
        sections: cfg.mrope_section().to_vec(),
        variant,
    }
}

/// Patches to image tokens.
struct VisionTower {
    patch_embed: Linear,
    blocks: Vec<VisionBlock>,
    merger: PatchMerger,
    variant: Variant,
}

impl VisionTower {
    async fn load<S: Source>(
        w: &Weights<'_, S>,
        cfg: &VisionConfig,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let mut blocks = Vec::with_capacity(cfg.depth);
        for i in 0..cfg.depth {
            blocks.push(VisionBlock::load(w, &format!("visual.blocks.{i}")).await?);
            progress(i + 1);
        }
        Ok(Self {
            patch_embed: Linear::load(w, "visual.patch_embed.proj").await?,
            blocks,
            merger: PatchMerger::load(w, "visual.merger").await?,
            variant: w.variant(),
        })
    }

    fn shapes(cfg: &VisionConfig) -> Vec<(String, Vec<usize>)> {
        let (hidden, ffn) = (cfg.hidden_size, cfg.intermediate_size);
        let merged = hidden * cfg.merge_area();
        let side = cfg.patch_size;
        let patch = vec![hidden, cfg.in_channels, cfg.temporal_patch_size, side, side];
        let mut shapes = vec![("visual.patch_embed.proj.weight".to_owned(), patch)];
        for i in 0..cfg.depth {
            let block = [
                ("norm1.weight", vec![hidden]),
                ("norm2.weight", vec![hidden]),
                ("attn.qkv.weight", vec![3 * hidden, hidden]),
                ("attn.qkv.bias", vec![3 * hidden]),
                ("attn.proj.weight", vec![hidden, hidden]),
                ("attn.proj.bias", vec![hidden]),
                ("mlp.gate_proj.weight", vec![ffn, hidden]),
                ("mlp.gate_proj.bias", vec![ffn]),
                ("mlp.up_proj.weight", vec![ffn, hidden]),
                ("mlp.up_proj.bias", vec![ffn]),
                ("mlp.down_proj.weight", vec![hidden, ffn]),
                ("mlp.down_proj.bias", vec![hidden]),
            ];
            shapes.extend(block.map(|(name, shape)| (format!("visual.blocks.{i}.{name}"), shape)));
        }
        let merger = [
            ("ln_q.weight", vec![hidden]),
            ("mlp.0.weight", vec![merged, merged]),
            ("mlp.0.bias", vec![merged]),
            ("mlp.2.weight", vec![cfg.out_hidden_size, merged]),
            ("mlp.2.bias", vec![cfg.out_hidden_size]),
        ];
        shapes.extend(merger.map(|(name, shape)| (format!("visual.merger.{name}"), shape)));
        shapes
    }

    fn forward(
        &self,
        pixel_values: Tensor<2>, // [patches, channels * frames * side * side]
        layout: VisionLayout,
        cfg: &VisionConfig,
        trace: &mut Trace,
    ) -> Result<Tensor<2>> {
        let device = pixel_values.device();
        let ctx = VisionContext::new(&layout, cfg, &device, self.variant);
        let x = self.patch_embed.forward(pixel_values)?; // [patches, hidden]
        let n_patches = layout.patch_order.len();
        let order = tensor_i32(layout.patch_order, [n_patches], &device);
        let x = gather_rows(&x, order); // window order from here on
        trace(TraceStage::PatchEmbed, &x);

        let mut x = x;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, cfg.fullatt_block_indexes.contains(&i), &ctx)?;
            trace(TraceStage::VisionBlock(i), &x);
        }

        let merged = self.merger.forward(x, cfg)?; // [tokens, out_hidden]
        let n_tokens = layout.token_places.len();
        let places = tensor_i32(layout.token_places, [n_tokens], &device);
        let merged = gather_rows(&merged, places); // arrival order again
        trace(TraceStage::Merger, &merged);
        Ok(merged)
    }
}

/// What every block of the tower reads besides its input.
struct VisionContext {
    rotary_table: Tensor<2>,
    positions: Tensor<2, Int>,     // [2, patches]
    slots: Tensor<1, Int>,         // [patches], every patch in its own place
    window_ranges: Tensor<2, Int>, // [patches, 2]
    full_ranges: Tensor<2, Int>,   // [patches, 2]
    n_heads: usize,
    head_dim: usize,
    variant: Variant,
}

impl VisionContext {
    fn new(layout: &VisionLayout, cfg: &VisionConfig, device: &Device, variant: Variant) -> Self {
        let (head_dim, n_patches) = (cfg.head_dim(), layout.patch_order.len());
        let highest = layout.positions.iter().flatten().max().copied().unwrap_or(0);
        let n_positions = highest as usize + 1;
        let ranges = |r: &[[i32; 2]]| tensor_i32(r.as_flattened().to_vec(), [n_patches, 2], device);
        Self {
            // Half of the frequencies turn by the row, half by the column, both from the same list.
            rotary_table: rotary_table(
                n_positions,
                head_dim / 2,
                head_dim / 2,
                cfg.rope_theta(),
                device,
            ),
            positions: tensor_i32(layout.positions.concat(), [2, n_patches], device),
            slots: tensor_i32((0..n_patches as i32).collect(), [n_patches], device),
            window_ranges: ranges(&layout.window_ranges),
            full_ranges: ranges(&layout.full_ranges),
            n_heads: cfg.num_heads,
            head_dim,
            variant,
        }
    }
}

/// One block of the tower.
struct VisionBlock {
    norm1: RmsNorm,
    norm2: RmsNorm,
    attn: VisionAttention,
    mlp: Mlp,
}

impl VisionBlock {
    async fn load<S: Source>(w: &Weights<'_, S>, name: &str) -> Result<Self> {
        let at = |part: &str| format!("{name}.{part}");
        Ok(Self {
            norm1: RmsNorm::load(w, &at("norm1"), VISION_EPS).await?,
            norm2: RmsNorm::load(w, &at("norm2"), VISION_EPS).await?,
            attn: VisionAttention::load(w, &at("attn")).await?,
            mlp: Mlp::load(w, &at("mlp")).await?,
        })
    }

    fn forward(&self, x: Tensor<2>, full: bool, ctx: &VisionContext) -> Result<Tensor<2>> {
        let x = self.attn.forward_add(x, &self.norm1, full, ctx)?;
        self.mlp.forward_add(x, &self.norm2)
    }
}

/// Attention within a window or within a frame.
struct VisionAttention {
    qkv: Linear,
    proj: Linear,
}

impl VisionAttention {
    async fn load<S: Source>(w: &Weights<'_, S>, name: &str) -> Result<Self> {
        Ok(Self {
            qkv: Linear::load(w, &format!("{name}.qkv")).await?,
            proj: Linear::load(w, &format!("{name}.proj")).await?,
        })
    }

    /// `x + attention(norm(x))`.
    fn forward_add(
        &self,
        x: Tensor<2>,
        norm: &RmsNorm,
        full: bool,
        ctx: &VisionContext,
    ) -> Result<Tensor<2>> {
        let ([patches, hidden], device) = (x.dims(), x.device());
        let qkv = self.qkv.forward_normed(x.clone(), norm)?; // [patches, 3 * hidden]
        let buffer = || zeros([patches, ctx.n_heads, ctx.head_dim], &device);
        let (q, k, v) = rotary_split(
            qkv,
            &ctx.rotary_table,
            &ctx.positions,
            &ctx.slots,
            buffer(),
            buffer(),
            ctx.n_heads,
            &[ctx.head_dim / 4; 2],
        )?; // [patches, heads, head_dim]
        let ranges = if full { &ctx.full_ranges } else { &ctx.window_ranges };
        let y = attention(q, k, v, ranges.clone(), (ctx.head_dim as f32).powf(-0.5), ctx.variant)?;
        self.proj.forward_add(y.reshape([patches, hidden]), x)
    }
}

/// Neighbouring patches to one token of the language model's width.
struct PatchMerger {
    ln_q: RmsNorm,
    mlp: [Linear; 2],
}

impl PatchMerger {
    async fn load<S: Source>(w: &Weights<'_, S>, name: &str) -> Result<Self> {
        let linear = async |part: &str| Linear::load(w, &format!("{name}.{part}")).await;
        Ok(Self {
            ln_q: RmsNorm::load(w, &format!("{name}.ln_q"), VISION_EPS).await?,
            mlp: [linear("mlp.0").await?, linear("mlp.2").await?],
        })
    }

    fn forward(&self, x: Tensor<2>, cfg: &VisionConfig) -> Result<Tensor<2>> {
        let [patches, hidden] = x.dims();
        let area = cfg.merge_area();
        let x = self.ln_q.forward(x)?.reshape([patches / area, hidden * area]);
        let [first, second] = &self.mlp;
        second.forward(gelu(first.forward(x)?))
    }
}

/// Token embeddings to hidden states.
struct TextModel {
    embed_tokens: Embedding,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
}

impl TextModel {
    async fn load<S: Source>(
        w: &Weights<'_, S>,
        cfg: &TextConfig,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let mut layers = Vec::with_capacity(cfg.num_hidden_layers);
        for i in 0..cfg.num_hidden_layers {
            layers.push(DecoderLayer::load(w, &format!("model.layers.{i}"), cfg).await?);
            progress(i + 1);
        }
        Ok(Self {
            embed_tokens: Embedding::load(w, "model.embed_tokens").await?,
            layers,
            norm: RmsNorm::load(w, "model.norm", cfg.rms_norm_eps).await?,
        })
    }

    fn shapes(cfg: &TextConfig) -> Vec<(String, Vec<usize>)> {
        let (hidden, ffn) = (cfg.hidden_size, cfg.intermediate_size);
        let q = cfg.num_attention_heads * cfg.head_dim();
        let kv = cfg.n_kv_heads() * cfg.head_dim();
        let mut shapes = vec![
            ("model.embed_tokens.weight".to_owned(), vec![cfg.vocab_size, hidden]),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ];
        for i in 0..cfg.num_hidden_layers {
            let layer = [
                ("input_layernorm.weight", vec![hidden]),
                ("post_attention_layernorm.weight", vec![hidden]),
                ("self_attn.q_proj.weight", vec![q, hidden]),
                ("self_attn.q_proj.bias", vec![q]),
                ("self_attn.k_proj.weight", vec![kv, hidden]),
                ("self_attn.k_proj.bias", vec![kv]),
                ("self_attn.v_proj.weight", vec![kv, hidden]),
                ("self_attn.v_proj.bias", vec![kv]),
                ("self_attn.o_proj.weight", vec![hidden, q]),
                ("mlp.gate_proj.weight", vec![ffn, hidden]),
                ("mlp.up_proj.weight", vec![ffn, hidden]),
                ("mlp.down_proj.weight", vec![hidden, ffn]),
            ];
            shapes.extend(layer.map(|(name, shape)| (format!("model.layers.{i}.{name}"), shape)));
        }
        shapes
    }

    /// Residual stream of the next tokens before the final norm: `[tokens, hidden]`.
    fn forward(
        &self,
        x: Tensor<2>,
        positions: Tensor<2, Int>,
        cache: &mut Cache,
        heads: &Heads,
        cfg: &TextConfig,
        trace: &mut Trace,
    ) -> Result<Tensor<2>> {
        let ([tokens, _], device) = (x.dims(), x.device());
        let slots = cache.slots(tokens, &device);
        let everything = cache.ranges(tokens, None, &device);
        let mut x = x;
        for (i, layer) in self.layers.iter().enumerate() {
            let ranges = match cfg.window_of(i) {
                Some(window) => cache.ranges(tokens, Some(window), &device),
                None => everything.clone(),
            };
            let place = Place { layer: i, positions: &positions, slots: &slots };
            x = layer.forward(x, place, ranges, cache, heads)?;
            trace(TraceStage::TextLayer(i), &x);
        }
        cache.advance(tokens);
        Ok(x)
    }
}

/// One layer of the language model.
struct DecoderLayer {
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    qkv: Linear,
    o_proj: Linear,
    mlp: Mlp,
}

impl DecoderLayer {
    async fn load<S: Source>(w: &Weights<'_, S>, name: &str, cfg: &TextConfig) -> Result<Self> {
        let at = |part: &str| format!("{name}.{part}");
        let norm = async |part: &str| RmsNorm::load(w, &at(part), cfg.rms_norm_eps).await;
        Ok(Self {
            input_layernorm: norm("input_layernorm").await?,
            post_attention_layernorm: norm("post_attention_layernorm").await?,
            qkv: Linear::load(w, &at("self_attn.qkv")).await?,
            o_proj: Linear::load(w, &at("self_attn.o_proj")).await?,
            mlp: Mlp::load(w, &at("mlp")).await?,
        })
    }

    fn size_bytes(&self) -> u64 {
        self.qkv.size_bytes() + self.o_proj.size_bytes() + self.mlp.size_bytes()
    }

    /// Some tokens after those in the cache, each with the keys in its range: `[tokens, hidden]`.
    fn forward(
        &self,
        x: Tensor<2>,
        place: Place,
        ranges: Tensor<2, Int>, // [tokens, 2]
        cache: &mut Cache,
        heads: &Heads,
    ) -> Result<Tensor<2>> {
        let qkv = self.qkv.forward_normed(x.clone(), &self.input_layernorm)?;
        let [q, k, v] = cache.split(qkv, &place, heads)?;
        let y = attention(q, k, v, ranges, scale(heads), heads.variant)?;
        self.finish(x, y, heads)
    }

    /// One token of every row of a batch: `[rows, hidden]`.
    fn step(
        &self,
        x: Tensor<2>,
        layer: usize,
        state: &BatchState,
        cache: &Cache,
        heads: &Heads,
        cfg: &TextConfig,
    ) -> Result<Tensor<2>> {
        let qkv = self.qkv.forward_normed(x.clone(), &self.input_layernorm)?;
        let place = Place { layer, positions: &state.positions, slots: &state.slots };
        let [q, k, v] = cache.split_in_place(qkv, &place, heads)?;
        let (window, max_keys) = (cfg.window_of(layer), cache.capacity());
        let plan = StepAttention { scale: scale(heads), window, max_keys, variant: heads.variant };
        let y = attention_step(q, k, v, &state.places, plan)?;
        self.finish(x, y, heads)
    }

    /// What follows the attention `y: [tokens, n_heads, head_dim]`.
    fn finish(&self, x: Tensor<2>, y: Tensor<3>, heads: &Heads) -> Result<Tensor<2>> {
        let [tokens, _] = x.dims();
        let y = y.reshape([tokens, heads.n_heads * heads.head_dim]);
        let x = self.o_proj.forward_add(y, x)?;
        self.mlp.forward_add(x, &self.post_attention_layernorm)
    }
}

fn scale(heads: &Heads) -> f32 {
    (heads.head_dim as f32).powf(-0.5)
}
