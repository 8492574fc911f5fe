//! What the engine sees of any architecture.

use globe_format::packed::{Packed, is_packed};
use globe_format::{Checkpoint, DtypeSummary, Files, Source};
use globe_ops::{BatchState, Compute, Int, KvFormat, LogpOptions, RawQueue, SampleOptions, Tensor};

use crate::qwen2_5_vl::{AnswerGroup, Trace, TrainingPass};
use crate::weights::{Noise, Store};
use crate::{
    Cache, Config, Error, Gradients, LoraModules, LoraParameters, LoraSet, LoraShape, Precision,
    Qwen2_5Vl, Result, VisionPass, WeightParameters, WeightPlan,
};

/// Patch grid of one image: frames, rows and columns of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageGrid(pub [usize; 3]);

impl ImageGrid {
    /// Patches in all.
    pub fn patches(&self) -> usize {
        self.0.iter().product()
    }

    /// Frames, rows and columns of merged tokens.
    ///
    /// # Errors
    /// [`Error::Grid`] if rows or columns do not divide by `merge`, or are zero.
    pub fn merged(&self, merge: usize) -> Result<[usize; 3]> {
        let [frames, rows, columns] = self.0;
        let divides = |n: usize| n > 0 && n.is_multiple_of(merge);
        if frames == 0 || !divides(rows) || !divides(columns) {
            return Err(Error::Grid { grid: self.0, merge });
        }
        Ok([frames, rows / merge, columns / merge])
    }
}

/// A loaded model of any supported architecture.
pub enum Model {
    /// Qwen2.5-VL, of which GLOBE-Qwen2.5VL-7B is one.
    Qwen2_5Vl(Qwen2_5Vl),
}

/// What a model folder holds, read without loading weights.
#[derive(Clone, Debug)]
pub struct Summary {
    /// `model_type` of the configuration.
    pub architecture: &'static str,
    /// The configuration.
    pub config: Config,
    /// Tensors in all.
    pub n_tensors: usize,
    /// Parameters in all.
    pub n_parameters: u64,
    /// Totals per number format.
    pub formats: Vec<StoredAs>,
    /// Bytes of the weights as stored.
    pub stored_bytes: u64,
}

impl Summary {
    /// Bytes of the cache for one token.
    pub fn cache_bytes_per_token(&self, kv: KvFormat) -> u64 {
        let text = &self.config.text;
        let words = 2 * text.n_kv_heads() * kv.words(text.head_dim());
        (text.num_hidden_layers * words * size_of::<f32>()) as u64
    }
}

/// Tensors of one number format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAs {
    /// `bf16`, `q4` and so on.
    pub format: &'static str,
    /// How many.
    pub n_tensors: usize,
    /// Their elements, padding left out.
    pub n_elements: u64,
    /// Their bytes, padding and scales included.
    pub size_bytes: u64,
}

impl Model {
    /// Reads the weight headers, checks that they fit the configuration of the folder, and uploads
    /// the weights tensor by tensor; `progress` gets tensors done and in all.
    ///
    /// # Errors
    /// [`Error`] naming the file, the field and what to do.
    pub async fn load<F: Files>(
        files: &F,
        config: Config,
        compute: &Compute,
        precision: Precision,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let store = open_checked(files, &config).await?;
        let model = Qwen2_5Vl::load(config, &store, compute, precision, progress).await?;
        Ok(Self::Qwen2_5Vl(model))
    }

    /// A model of noise with this configuration, for measuring speed: `bits` per weight of the
    /// language model, `vision_bits` of the tower (4, 8, 16 or 32).
    ///
    /// # Errors
    /// [`Error::Config`] for other bits, [`Error::Ops`] if the device has no room.
    pub async fn random(
        config: Config,
        bits: u32,
        vision_bits: u32,
        compute: &Compute,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let store = Store::<&[u8]>::Random(Noise::new(bits, vision_bits)?);
        let precision = Precision::Stored;
        let model = Qwen2_5Vl::load(config, &store, compute, precision, progress).await?;
        Ok(Self::Qwen2_5Vl(model))
    }

    /// Bytes of weights that one token of one answer reads: all of the language model but the
    /// embedding table.
    pub fn bytes_per_token(&self) -> u64 {
        match self {
            Self::Qwen2_5Vl(model) => model.bytes_per_token(),
        }
    }

    /// What the folder holds, its names and shapes checked.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub async fn inspect<F: Files>(files: &F) -> Result<Summary> {
        let config = Config::load(files).await?;
        let store = open_checked(files, &config).await?;
        let specs = Qwen2_5Vl::packed_specs(&config);
        let n_parameters: usize =
            specs.iter().flat_map(|spec| &spec.sources).map(|s| s.rows * s.cols).sum();
        let (n_tensors, formats) = match &store {
            Store::Checkpoint(checkpoint) => (checkpoint.names().count(), stored(checkpoint)),
            Store::Packed(packed) => (packed.manifest().tensors.len(), packed_formats(packed)),
            Store::Random(_) => unreachable!("a folder is read"),
        };
        Ok(Summary {
            architecture: Qwen2_5Vl::ARCHITECTURE,
            n_tensors,
            n_parameters: n_parameters as u64,
            stored_bytes: formats.iter().map(|f| f.size_bytes).sum(),
            formats,
            config,
        })
    }

    /// The weights of a checkpoint under the names of the model, its names and shapes checked.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub async fn checkpoint<F: Files>(files: &F) -> Result<(Config, Checkpoint<F::Source>)> {
        let config = Config::load(files).await?;
        let checkpoint = open_checkpoint(files, &config).await?;
        Ok((config, checkpoint))
    }

    /// `model_type` of the configuration.
    pub fn architecture(&self) -> &'static str {
        match self {
            Self::Qwen2_5Vl(_) => Qwen2_5Vl::ARCHITECTURE,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        match self {
            Self::Qwen2_5Vl(model) => model.config(),
        }
    }

    /// Bytes of its weights on the device.
    pub fn weights(&self) -> WeightPlan {
        match self {
            Self::Qwen2_5Vl(model) => model.weights(),
        }
    }

    /// How caches made from now on store keys and values: 16 bits halve them, and change tokens a little.
    ///
    /// # Errors
    /// [`Error::Ops`] for 16 bits on the CPU path, with the reference kernels, or with heads that are no
    /// multiple of 4.
    pub fn set_kv(&mut self, kv: KvFormat) -> Result<()> {
        match self {
            Self::Qwen2_5Vl(model) => model.set_kv(kv),
        }
    }

    /// How caches store keys and values.
    pub fn kv(&self) -> KvFormat {
        match self {
            Self::Qwen2_5Vl(model) => model.kv(),
        }
    }

    /// Gives up the vision tower; its memory is free once the device is idle. Features that were
    /// computed before can still be used.
    pub fn release_vision(&mut self) {
        match self {
            Self::Qwen2_5Vl(model) => model.release_vision(),
        }
    }

    /// Tokens that an image of this grid takes in the prompt.
    ///
    /// # Errors
    /// [`Error::Grid`] if the grid does not merge.
    pub fn image_tokens(&self, grid: ImageGrid) -> Result<usize> {
        let merge = self.config().vision.spatial_merge_size;
        Ok(grid.merged(merge)?.iter().product())
    }

    /// An empty cache for a prompt of `prompt` tokens and `rows` answers of `tail` tokens each.
    pub fn cache(&self, prompt: usize, tail: usize, rows: usize) -> Cache {
        match self {
            Self::Qwen2_5Vl(model) => model.cache(prompt, tail, rows),
        }
    }

    /// Whether answers can be drawn on the device, several at once, by [`crate::Batch`].
    pub fn can_batch(&self) -> bool {
        match self {
            Self::Qwen2_5Vl(model) => model.can_batch(),
        }
    }

    /// Features of the images, one row per merged token: `[tokens, hidden_size]`.
    /// `pixel_values`: the patches of all images, one after the other.
    ///
    /// # Errors
    /// [`Error::Grid`], [`Error::VisionReleased`], or [`Error::Ops`] if the patches do not fit the
    /// grids or the device fails.
    pub fn encode_images(&self, pixel_values: Vec<f32>, grids: &[ImageGrid]) -> Result<Tensor<2>> {
        match self {
            Self::Qwen2_5Vl(model) => model.encode_images(pixel_values, grids, &mut |_, _| {}),
        }
    }

    /// Reads the prompt into an empty cache; the logits of the token after it, `[1, vocab_size]`.
    ///
    /// # Errors
    /// [`Error`] if ids, images and cache do not fit together or the device fails.
    pub fn prefill(
        &self,
        ids: &[u32],
        images: Option<Tensor<2>>,
        grids: &[ImageGrid],
        cache: &mut Cache,
    ) -> Result<Tensor<2>> {
        match self {
            Self::Qwen2_5Vl(model) => model.prefill(ids, images, grids, cache, 1, &mut |_, _| {}),
        }
    }

    /// The same, with logits after each of the last `n` tokens, `[n, vocab_size]`, and the
    /// activations of every layer shown to `trace`.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn prefill_traced(
        &self,
        ids: &[u32],
        images: Option<Tensor<2>>,
        grids: &[ImageGrid],
        cache: &mut Cache,
        n: usize,
        trace: &mut Trace,
    ) -> Result<Tensor<2>> {
        match self {
            Self::Qwen2_5Vl(model) => model.prefill(ids, images, grids, cache, n, trace),
        }
    }

    /// Reads one more token; the logits of the token after it, `[1, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::CacheFull`], or [`Error::Ops`] if the device fails.
    pub fn step(&self, id: Tensor<1, Int>, cache: &mut Cache) -> Result<Tensor<2>> {
        match self {
            Self::Qwen2_5Vl(model) => model.step(id, cache),
        }
    }

    /// Log-probabilities of given answers to their prompts, all in one sequence; `keep` keeps what a
    /// backward pass needs. `options`: a temperature, or [`LogpOptions`].
    ///
    /// # Errors
    /// [`Error`] if ids and images do not fit together, [`Error::Training`] for sequences that this
    /// model cannot be trained on.
    pub fn forward(
        &self,
        groups: &[AnswerGroup],
        options: impl Into<LogpOptions>,
        keep: bool,
    ) -> Result<TrainingPass> {
        match self {
            Self::Qwen2_5Vl(model) => model.forward(groups, options.into(), keep),
        }
    }

    /// Adds gradients of what is trained to `sum`, from the derivative of the loss by every
    /// log-probability; returns those of the features of images if the tower is trained.
    ///
    /// # Errors
    /// [`Error::Training`] if the pass was not kept or `dlogp` has other lengths.
    pub fn backward(
        &self,
        pass: TrainingPass,
        dlogp: &[Vec<f32>],
        sum: &mut Gradients,
    ) -> Result<Option<Tensor<2>>> {
        match self {
            Self::Qwen2_5Vl(model) => model.backward(pass, dlogp, sum),
        }
    }

    /// Features of images for training the tower.
    ///
    /// # Errors
    /// As [`Model::encode_images`].
    pub fn forward_images(&self, pixel_values: &[f32], grids: &[ImageGrid]) -> Result<VisionPass> {
        match self {
            Self::Qwen2_5Vl(model) => model.forward_images(pixel_values, grids),
        }
    }

    /// Adds gradients of the tower to `sum`, from those of its features.
    ///
    /// # Errors
    /// [`Error::Ops`] if `dfeatures` has another shape than the features.
    pub fn backward_images(
        &self,
        pass: VisionPass,
        dfeatures: Tensor<2>,
        sum: &mut Gradients,
    ) -> Result<()> {
        match self {
            Self::Qwen2_5Vl(model) => model.backward_images(pass, dfeatures, sum),
        }
    }

    /// The model's own tensors, those of the tower if `vision`, as what training changes.
    pub fn weight_parameters(&mut self, vision: bool) -> WeightParameters<'_> {
        match self {
            Self::Qwen2_5Vl(model) => model.weight_parameters(vision),
        }
    }

    /// Zero gradients of the model's own tensors.
    ///
    /// # Errors
    /// [`Error::Ops`] unless the model was loaded as [`Precision::Trained`].
    pub fn weight_gradients(&mut self, vision: bool) -> Result<Gradients> {
        match self {
            Self::Qwen2_5Vl(model) => model.weight_gradients(vision),
        }
    }

    /// Pairs for every module in `found`, not on the model yet.
    ///
    /// # Errors
    /// [`Error::Adapter`] or [`Error::NoModule`] if the adapter belongs to another base.
    pub fn lora_set(
        &self,
        shape: LoraShape,
        found: &LoraModules,
        compute: &Compute,
    ) -> Result<LoraSet> {
        match self {
            Self::Qwen2_5Vl(model) => model.lora_set(shape, found, compute),
        }
    }

    /// Puts pairs onto the model and takes those that were there.
    ///
    /// # Errors
    /// [`Error::Training`] for the pairs of another model.
    pub fn swap_lora(&mut self, set: &mut LoraSet) -> Result<()> {
        match self {
            Self::Qwen2_5Vl(model) => model.swap_lora(set),
        }
    }

    /// Switches all adapters on or off.
    pub fn switch_lora(&mut self, on: bool) {
        match self {
            Self::Qwen2_5Vl(model) => model.switch_lora(on),
        }
    }

    /// Zero gradients of all adapters.
    pub fn lora_gradients(&self) -> Gradients {
        match self {
            Self::Qwen2_5Vl(model) => model.lora_gradients(),
        }
    }

    /// The adapters.
    pub fn lora_parameters(&mut self) -> LoraParameters<'_> {
        match self {
            Self::Qwen2_5Vl(model) => model.lora_parameters(),
        }
    }

    /// Modules that can have an adapter, with outputs and inputs.
    pub fn lora_modules(&self) -> Vec<(String, [usize; 2])> {
        match self {
            Self::Qwen2_5Vl(model) => Qwen2_5Vl::lora_modules(model.config()),
        }
    }

    /// Where recorded steps are replayed, if not by CubeCL.
    pub(crate) fn raw_queue(&self) -> Option<&RawQueue> {
        match self {
            Self::Qwen2_5Vl(model) => model.raw_queue(),
        }
    }

    /// One step of every row of a batch, on the device alone.
    pub(crate) fn step_batch(
        &self,
        state: &BatchState,
        cache: &Cache,
        options: &SampleOptions,
        stop: &[u32],
    ) -> Result<()> {
        match self {
            Self::Qwen2_5Vl(model) => model.step_batch(state, cache, options, stop),
        }
    }
}

async fn open_checked<F: Files>(files: &F, config: &Config) -> Result<Store<F::Source>> {
    if is_packed(files).await? {
        let packed = Packed::open(files).await?;
        packed.check(&Qwen2_5Vl::packed_specs(config))?;
        return Ok(Store::Packed(packed));
    }
    Ok(Store::Checkpoint(open_checkpoint(files, config).await?))
}

pub(crate) async fn open_checkpoint<F: Files>(
    files: &F,
    config: &Config,
) -> Result<Checkpoint<F::Source>> {
    let checkpoint = Checkpoint::open(files).await?.rename(Qwen2_5Vl::canonical_name)?;
    let ignored = |name: &str| Qwen2_5Vl::is_ignored(config, name);
    checkpoint.check_names(&Qwen2_5Vl::tensor_shapes(config), ignored)?;
    Ok(checkpoint)
}

fn stored<S: Source>(checkpoint: &Checkpoint<S>) -> Vec<StoredAs> {
    let row = |d: DtypeSummary| StoredAs {
        format: d.dtype.name(),
        n_tensors: d.n_tensors,
        n_elements: d.n_elements,
        size_bytes: d.size_bytes,
    };
    checkpoint.dtype_summary().into_iter().map(row).collect()
}

fn packed_formats<S: Source>(packed: &Packed<S>) -> Vec<StoredAs> {
    let mut rows: Vec<StoredAs> = Vec::new();
    for tensor in &packed.manifest().tensors {
        let format = tensor.format.name();
        let at = rows.iter().position(|row| row.format == format).unwrap_or_else(|| {
            rows.push(StoredAs { format, n_tensors: 0, n_elements: 0, size_bytes: 0 });
            rows.len() - 1
        });
        rows[at].n_tensors += 1;
        rows[at].n_elements += tensor.shape.iter().product::<usize>() as u64;
        rows[at].size_bytes += tensor.size_bytes();
    }
    rows
}
