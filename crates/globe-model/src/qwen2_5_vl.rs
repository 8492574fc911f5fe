//! Qwen2.5-VL (arXiv 2502.13923): a vision tower with window attention in front of Qwen2.
//!
//! Field names are checkpoint names. Checkpoints: Qwen2.5-VL-3B, 7B, 72B and their fine-tunes,
//! GLOBE-Qwen2.5VL-7B among them.

use globe_format::{Checkpoint, Source};
use globe_ops::{
    Compute, Device, Int, Tensor, attention, gather_rows, gelu, rotary, scatter_rows, tensor_f32,
    tensor_i32,
};

use crate::layers::{Linear, Mlp, Residual, RmsNorm};
use crate::rope::rotary_table;
use crate::weights::Weights;
use crate::{
    Cache, Config, Error, ImageGrid, Result, TextConfig, VisionConfig, VisionLayout,
    mrope_positions,
};

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
    visual: VisionTower,
    model: TextModel,
    lm_head: Linear,
}

impl Qwen2_5Vl {
    /// `model_type` in `config.json`.
    pub const ARCHITECTURE: &str = "qwen2_5_vl";

    /// Uploads the weights of a checkpoint whose names and shapes were checked.
    ///
    /// # Errors
    /// [`Error::Format`] if a tensor is damaged, [`Error::TensorTooLarge`] if one cannot be bound.
    pub async fn load<S: Source>(
        config: Config,
        checkpoint: &Checkpoint<S>,
        compute: &Compute,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let w = Weights::new(checkpoint, compute);
        let total = config.vision.depth + config.text.num_hidden_layers;
        let done = config.vision.depth;
        let (tower, text) = (w.at("visual"), w.at("model"));
        let visual = VisionTower::load(&tower, &config.vision, &mut |n| progress(n, total)).await?;
        let model =
            TextModel::load(&text, &config.text, &mut |n| progress(done + n, total)).await?;
        let lm_head = if config.tie_word_embeddings {
            Linear::tied(model.embed_tokens.clone())
        } else {
            Linear::load(&w.at("lm_head")).await?
        };
        Ok(Self { config, device: compute.device.clone(), visual, model, lm_head })
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

    /// An empty cache for `capacity` tokens.
    pub fn cache(&self, capacity: usize) -> Cache {
        let cfg = &self.config.text;
        let head_dim = cfg.head_dim();
        // An image spans at least as many tokens as positions, so none lies past the capacity.
        let table = rotary_table(capacity, head_dim / 2, head_dim, cfg.rope_theta(), &self.device);
        Cache::new(cfg.num_hidden_layers, cfg.n_kv_heads() * head_dim, capacity, table)
    }

    /// Features of the images: `[merged tokens, hidden]`.
    ///
    /// # Errors
    /// [`Error::Grid`], or [`Error::Ops`] if the patches do not fit the grids.
    pub fn encode_images(
        &self,
        pixel_values: Vec<f32>,
        grids: &[ImageGrid],
        trace: &mut Trace,
    ) -> Result<Tensor<2>> {
        let cfg = &self.config.vision;
        let layout = VisionLayout::new(grids, cfg)?;
        let (patches, values) = (layout.patch_order.len(), cfg.patch_values());
        if pixel_values.len() != patches * values {
            let (expected, got) = (vec![patches, values], vec![pixel_values.len()]);
            let error = globe_ops::Error::Shape {
                op: "encode_images",
                what: "pixel_values",
                expected,
                got,
            };
            return Err(error.into());
        }
        let x = tensor_f32(pixel_values, [patches, values], &self.device);
        self.visual.forward(x, layout, cfg, trace)
    }

    /// Reads a prompt into an empty cache; logits of the token after it, `[1, vocab_size]`.
    ///
    /// # Errors
    /// [`Error`] if ids, images and cache do not fit together.
    pub fn prefill(
        &self,
        ids: &[u32],
        images: Option<Tensor<2>>,
        grids: &[ImageGrid],
        cache: &mut Cache,
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
        let hidden = self.model.forward(x, axes, cache, &cfg.text, trace)?;
        let last = tensor_i32(vec![ids.len() as i32 - 1], [1], &self.device);
        self.lm_head.forward(gather_rows(&hidden, last))
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
        let x = gather_rows(&self.model.embed_tokens, tensor_i32(ids, [n], &self.device));
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
        let x = gather_rows(&self.model.embed_tokens, id);
        let position = cache.len() as i32 + cache.rope_delta;
        let axes = tensor_i32(vec![position; 3], [3, 1], &self.device);
        let hidden = self.model.forward(x, axes, cache, &self.config.text, &mut |_, _| {})?;
        self.lm_head.forward(hidden)
    }
}

/// Patches to image tokens.
struct VisionTower {
    patch_embed: Linear,
    blocks: Vec<VisionBlock>,
    merger: PatchMerger,
}

impl VisionTower {
    async fn load<S: Source>(
        w: &Weights<'_, S>,
        cfg: &VisionConfig,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let mut blocks = Vec::with_capacity(cfg.depth);
        for i in 0..cfg.depth {
            blocks.push(VisionBlock::load(&w.at("blocks").at(i)).await?);
            progress(i + 1);
        }
        Ok(Self {
            patch_embed: Linear::load(&w.at("patch_embed.proj")).await?,
            blocks,
            merger: PatchMerger::load(&w.at("merger")).await?,
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
        let ctx = VisionContext::new(&layout, cfg, &device);
        let x = self.patch_embed.forward(pixel_values)?; // [patches, hidden]
        let n_patches = layout.patch_order.len();
        let order = tensor_i32(layout.patch_order, [n_patches], &device);
        let x = gather_rows(&x, order); // window order from here on
        trace(TraceStage::PatchEmbed, &x);

        let mut residual = Residual::new(x);
        for (i, block) in self.blocks.iter().enumerate() {
            let full = cfg.fullatt_block_indexes.contains(&i);
            let (x, next) = block.forward(residual, full, &ctx)?;
            if i > 0 {
                trace(TraceStage::VisionBlock(i - 1), &x);
            }
            residual = next;
        }
        let (x, normed) = residual.norm(&self.merger.ln_q)?;
        trace(TraceStage::VisionBlock(self.blocks.len() - 1), &x);

        let merged = self.merger.forward(normed, cfg)?; // [tokens, out_hidden]
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
    window_ranges: Tensor<2, Int>, // [patches, 2]
    full_ranges: Tensor<2, Int>,   // [patches, 2]
    n_heads: usize,
    head_dim: usize,
}

impl VisionContext {
    fn new(layout: &VisionLayout, cfg: &VisionConfig, device: &Device) -> Self {
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
            window_ranges: ranges(&layout.window_ranges),
            full_ranges: ranges(&layout.full_ranges),
            n_heads: cfg.num_heads,
            head_dim,
        }
    }

    /// Turns the heads of `x: [patches, hidden]` by their positions.
    fn rotate(&self, x: Tensor<2>) -> Result<Tensor<3>> {
        let sections = [self.head_dim / 4; 2];
        Ok(rotary(self.split(x), &self.rotary_table, self.positions.clone(), &sections)?)
    }

    fn split(&self, x: Tensor<2>) -> Tensor<3> {
        let [patches, _] = x.dims();
        x.reshape([patches, self.n_heads, self.head_dim])
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
    async fn load<S: Source>(w: &Weights<'_, S>) -> Result<Self> {
        Ok(Self {
            norm1: RmsNorm::load(&w.at("norm1"), VISION_EPS).await?,
            norm2: RmsNorm::load(&w.at("norm2"), VISION_EPS).await?,
            attn: VisionAttention::load(&w.at("attn")).await?,
            mlp: Mlp::load(&w.at("mlp")).await?,
        })
    }

    /// The stream before this block, and the stream after it with its last addition open.
    fn forward(
        &self,
        residual: Residual,
        full: bool,
        ctx: &VisionContext,
    ) -> Result<(Tensor<2>, Residual)> {
        let (before, normed) = residual.norm(&self.norm1)?;
        let attended = self.attn.forward(normed, full, ctx)?;
        let (x, normed) = self.norm2.add(before.clone(), attended)?;
        Ok((before, Residual::with_open(x, self.mlp.forward(normed)?)))
    }
}

/// Attention within a window or within a frame.
struct VisionAttention {
    qkv: [Linear; 3],
    proj: Linear,
}

impl VisionAttention {
    async fn load<S: Source>(w: &Weights<'_, S>) -> Result<Self> {
        let qkv = w.at("qkv");
        let part = async |index| Linear::load_part(&qkv, index, 3).await;
        let qkv = [part(0).await?, part(1).await?, part(2).await?];
        Ok(Self { qkv, proj: Linear::load(&w.at("proj")).await? })
    }

    fn forward(&self, x: Tensor<2>, full: bool, ctx: &VisionContext) -> Result<Tensor<2>> {
        let [patches, hidden] = x.dims();
        let [q, k, v] = &self.qkv;
        let q = ctx.rotate(q.forward(x.clone())?)?; // [patches, heads, head_dim]
        let k = ctx.rotate(k.forward(x.clone())?)?;
        let v = ctx.split(v.forward(x)?);
        let ranges = if full { &ctx.full_ranges } else { &ctx.window_ranges };
        let scale = (ctx.head_dim as f32).powf(-0.5);
        let y = attention(q, k, v, ranges.clone(), scale)?;
        self.proj.forward(y.reshape([patches, hidden]))
    }
}

/// Neighbouring patches to one token of the language model's width.
struct PatchMerger {
    ln_q: RmsNorm,
    mlp: [Linear; 2],
}

impl PatchMerger {
    async fn load<S: Source>(w: &Weights<'_, S>) -> Result<Self> {
        Ok(Self {
            ln_q: RmsNorm::load(&w.at("ln_q"), VISION_EPS).await?,
            mlp: [Linear::load(&w.at("mlp.0")).await?, Linear::load(&w.at("mlp.2")).await?],
        })
    }

    fn forward(&self, normed: Tensor<2>, cfg: &VisionConfig) -> Result<Tensor<2>> {
        let [patches, hidden] = normed.dims();
        let area = cfg.merge_area();
        let x = normed.reshape([patches / area, hidden * area]);
        let [first, second] = &self.mlp;
        second.forward(gelu(first.forward(x)?))
    }
}

/// Token embeddings to hidden states.
struct TextModel {
    embed_tokens: Tensor<2>, // [vocab, hidden]
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
            layers.push(DecoderLayer::load(&w.at("layers").at(i), cfg).await?);
            progress(i + 1);
        }
        Ok(Self {
            embed_tokens: w.at("embed_tokens").matrix("weight").await?,
            layers,
            norm: RmsNorm::load(&w.at("norm"), cfg.rms_norm_eps).await?,
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

    /// Hidden states of the next tokens after the final norm: `[tokens, hidden]`.
    fn forward(
        &self,
        x: Tensor<2>,
        positions: Tensor<2, Int>,
        cache: &mut Cache,
        cfg: &TextConfig,
        trace: &mut Trace,
    ) -> Result<Tensor<2>> {
        let [tokens, _] = x.dims();
        let device = x.device();
        let slots = cache.slots(tokens, &device);
        let everything = cache.ranges(tokens, None, &device);
        let mut residual = Residual::new(x);
        for (i, layer) in self.layers.iter().enumerate() {
            let ranges = match cfg.window_of(i) {
                Some(window) => cache.ranges(tokens, Some(window), &device),
                None => everything.clone(),
            };
            let place = Place { layer: i, positions: &positions, slots: &slots, ranges };
            let (before, next) = layer.forward(residual, place, cache, cfg)?;
            if i > 0 {
                trace(TraceStage::TextLayer(i - 1), &before);
            }
            residual = next;
        }
        cache.advance(tokens);
        let (x, normed) = residual.norm(&self.norm)?;
        trace(TraceStage::TextLayer(self.layers.len() - 1), &x);
        Ok(normed)
    }
}

/// Where the tokens of one forward pass stand.
struct Place<'a> {
    layer: usize,
    positions: &'a Tensor<2, Int>, // [3, tokens]
    slots: &'a Tensor<1, Int>,     // [tokens], rows of the cache
    ranges: Tensor<2, Int>,        // [tokens, 2], keys each token reads
}

/// One layer of the language model.
struct DecoderLayer {
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    self_attn: Attention,
    mlp: Mlp,
}

impl DecoderLayer {
    async fn load<S: Source>(w: &Weights<'_, S>, cfg: &TextConfig) -> Result<Self> {
        let norm = async |name: &str| RmsNorm::load(&w.at(name), cfg.rms_norm_eps).await;
        Ok(Self {
            input_layernorm: norm("input_layernorm").await?,
            post_attention_layernorm: norm("post_attention_layernorm").await?,
            self_attn: Attention::load(&w.at("self_attn")).await?,
            mlp: Mlp::load(&w.at("mlp")).await?,
        })
    }

    /// The stream before this layer, and the stream after it with its last addition open.
    fn forward(
        &self,
        residual: Residual,
        place: Place,
        cache: &mut Cache,
        cfg: &TextConfig,
    ) -> Result<(Tensor<2>, Residual)> {
        let (before, normed) = residual.norm(&self.input_layernorm)?;
        let attended = self.self_attn.forward(normed, place, cache, cfg)?;
        let (x, normed) = self.post_attention_layernorm.add(before.clone(), attended)?;
        Ok((before, Residual::with_open(x, self.mlp.forward(normed)?)))
    }
}

/// Causal attention with grouped heads over the cache.
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
}

impl Attention {
    async fn load<S: Source>(w: &Weights<'_, S>) -> Result<Self> {
        Ok(Self {
            q_proj: Linear::load(&w.at("q_proj")).await?,
            k_proj: Linear::load(&w.at("k_proj")).await?,
            v_proj: Linear::load(&w.at("v_proj")).await?,
            o_proj: Linear::load(&w.at("o_proj")).await?,
        })
    }

    fn forward(
        &self,
        x: Tensor<2>,
        place: Place,
        cache: &mut Cache,
        cfg: &TextConfig,
    ) -> Result<Tensor<2>> {
        let [tokens, _] = x.dims();
        let (n_heads, n_kv_heads, head_dim) =
            (cfg.num_attention_heads, cfg.n_kv_heads(), cfg.head_dim());
        let sections = cfg.mrope_section();
        let rotate = |x: Tensor<2>, heads: usize| {
            let x = x.reshape([tokens, heads, head_dim]);
            rotary(x, &cache.rotary_table, place.positions.clone(), &sections)
        };
        let q = rotate(self.q_proj.forward(x.clone())?, n_heads)?;
        let k = rotate(self.k_proj.forward(x.clone())?, n_kv_heads)?;
        let v = self.v_proj.forward(x)?; // [tokens, n_kv_heads * head_dim]

        let k = k.reshape([tokens, n_kv_heads * head_dim]);
        let capacity = cache.capacity();
        let [k, v] = cache
            .write(place.layer, k, v, place.slots)?
            .map(|buffer| buffer.reshape([capacity, n_kv_heads, head_dim]));
        let y = attention(q, k, v, place.ranges, (head_dim as f32).powf(-0.5))?;
        self.o_proj.forward(y.reshape([tokens, n_heads * head_dim]))
    }
}
