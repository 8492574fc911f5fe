//! A loaded model folder: everything between a photo with a prompt and its logits.

use globe_format::{Files, read_file};
use globe_image::{Photo, PreprocessorConfig, preprocess};
use globe_model::{Config, ImageGrid, Model, Precision};
use globe_ops::{Compute, Tensor, read_f32};
use globe_text::{ChatTemplate, Prompt, StopTokens, TemplateSource, Tokenizer, expand_images};

use crate::memory::plan_with;
use crate::room::{Keep, Lent, Room};
use crate::{Error, FeatureCache, LoadOptions, Result, features};

/// Model, tokenizer, template and preprocessing of one folder.
pub struct Engine {
    pub(crate) model: Model,
    pub(crate) reader: Reader,
    pub(crate) stop: StopTokens,
    pub(crate) compute: Compute,
    /// Bytes of device memory that may be used, if that is known.
    pub(crate) budget: Option<u64>,
    /// Where the last session leaves what the next one may use.
    pub(crate) kept: Keep,
}

/// What turns photos and prompts into patches and ids.
pub(crate) struct Reader {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: ChatTemplate,
    pub(crate) preprocessor: PreprocessorConfig,
}

impl Reader {
    /// Errors if the files of the folder contradict each other.
    pub(crate) fn check(&self, config: &Config) -> Result<()> {
        let Self { tokenizer, preprocessor: got, .. } = self;
        tokenizer.check_vocab(config.text.vocab_size)?;
        let vision = &config.vision;
        // A folder may call its placeholder otherwise; then the id of the configuration counts.
        let image_pad = tokenizer.id("<|image_pad|>").unwrap_or(config.image_token_id);
        let (tokens, images) = ("tokenizer.json", "preprocessor_config.json");
        for (file, field, got, expected) in [
            (tokens, "<|image_pad|>", image_pad as usize, config.image_token_id as usize),
            (images, "patch_size", got.patch_size, vision.patch_size),
            (images, "temporal_patch_size", got.temporal_patch_size, vision.temporal_patch_size),
            (images, "merge_size", got.merge_size, vision.spatial_merge_size),
        ] {
            if got != expected {
                return Err(Error::Mismatch { file, field, got, expected });
            }
        }
        Ok(())
    }

    /// Ids of a prompt, one per merged patch where a photo stands.
    pub(crate) fn ids(
        &self,
        prompt: &Prompt,
        grids: &[ImageGrid],
        config: &Config,
    ) -> Result<Vec<u32>> {
        let merge = config.vision.spatial_merge_size;
        let tokens = |grid: &ImageGrid| Ok(grid.merged(merge)?.iter().product());
        let per_image = grids.iter().map(tokens).collect::<Result<Vec<usize>>>()?;
        let text = self.template.render(&prompt.messages(grids.len()))?;
        let ids = self.tokenizer.encode(&text)?;
        Ok(expand_images(&ids, config.image_token_id, &per_image)?)
    }
}

/// A prompt as the model reads it.
pub struct Prepared {
    /// Token ids, one per merged patch where an image stands.
    pub ids: Vec<u32>,
    /// Patch grid of each image.
    pub grids: Vec<ImageGrid>,
    /// Patches of all images, one after the other: `[patches, values]`, row-major.
    pub pixel_values: Vec<f32>,
    /// Ids that stand for image patches.
    pub n_image_tokens: usize,
}

/// A prompt that was read: any number of answers start here. Its cache goes back to the engine with it.
pub struct Session {
    pub(crate) room: Lent,
    pub(crate) prompt: Vec<u32>,
    pub(crate) logits: Tensor<2>, // [1, vocab_size], of the first token of the answer
}

impl Session {
    /// Token ids of the prompt.
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// Logits of the first token of the answer: `[vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Ops`] if the device failed, [`Error::NotFinite`] if they are not numbers.
    pub async fn logits(&self) -> Result<Vec<f32>> {
        let logits = finite(read_f32(self.logits.clone()).await?)?;
        self.room.set_sound(true);
        Ok(logits)
    }
}

/// The logits, unless one is not a number.
pub(crate) fn finite(logits: Vec<f32>) -> Result<Vec<f32>> {
    if logits.iter().all(|l| l.is_finite()) { Ok(logits) } else { Err(Error::NotFinite) }
}

impl Engine {
    /// Loads a model folder; `progress` gets layers done and in all.
    ///
    /// # Errors
    /// [`Error`] naming the file, the field and what to do.
    pub async fn load<F: Files>(
        files: &F,
        compute: Compute,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        Self::load_with(files, compute, &LoadOptions::default(), progress).await
    }

    /// The same with weights held as `precision` says.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub async fn load_as<F: Files>(
        files: &F,
        compute: Compute,
        precision: Precision,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let options = LoadOptions { precision, ..LoadOptions::default() };
        Self::load_with(files, compute, &options, progress).await
    }

    /// The same within a budget of memory.
    ///
    /// # Errors
    /// As [`Engine::load`]; [`globe_model::Error::OverBudget`] before a weight is read.
    pub async fn load_with<F: Files>(
        files: &F,
        compute: Compute,
        options: &LoadOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let (config, reader, stop) = checked(files, &compute, options).await?;
        let LoadOptions { precision, budget, demand } = options;
        let mut model = Model::load(files, config, &compute, *precision, progress).await?;
        model.set_kv(demand.kv)?;
        Ok(Self { model, reader, stop, compute, budget: *budget, kept: Keep::default() })
    }

    /// Everything that [`Engine::load_with`] refuses before it reads a weight.
    ///
    /// # Errors
    /// As [`Engine::load_with`].
    pub async fn check<F: Files>(
        files: &F,
        compute: &Compute,
        options: &LoadOptions,
    ) -> Result<()> {
        checked(files, compute, options).await.map(|_| ())
    }

    /// Name of the adapter that computes.
    pub fn adapter(&self) -> &str {
        &self.compute.name
    }

    /// The device that computes.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.reader.tokenizer
    }

    /// Which file the chat template came from.
    pub fn template_source(&self) -> TemplateSource {
        self.reader.template.source()
    }

    /// Photos and prompt to patches and ids. `max_pixels` replaces the limit of the model folder.
    ///
    /// # Errors
    /// [`Error::Image`] or [`Error::Text`] naming what cannot be used.
    pub fn prepare(
        &self,
        photos: &[&Photo],
        prompt: &Prompt,
        max_pixels: Option<usize>,
    ) -> Result<Prepared> {
        let mut pixel_values = Vec::new();
        let mut grids = Vec::with_capacity(photos.len());
        for photo in photos {
            let patches = preprocess(photo, &self.reader.preprocessor, max_pixels)?;
            grids.push(ImageGrid(patches.grid_thw));
            match pixel_values.is_empty() {
                true => pixel_values = patches.pixel_values,
                false => pixel_values.extend_from_slice(&patches.pixel_values),
            }
        }
        let config = self.model.config();
        let ids = self.reader.ids(prompt, &grids, config)?;
        let n_image_tokens = ids.iter().filter(|id| **id == config.image_token_id).count();
        Ok(Prepared { ids, grids, pixel_values, n_image_tokens })
    }

    /// Features of the images of a prompt: `[image tokens, hidden_size]`, or `None` without images.
    ///
    /// # Errors
    /// [`Error::Model`] if patches and grids do not fit together, [`Error::Ops`] if the photos need a larger
    /// buffer than the adapter binds.
    pub fn encode(&self, prepared: &mut Prepared) -> Result<Option<Tensor<2>>> {
        if prepared.grids.is_empty() {
            return Ok(None);
        }
        let plan = self.plan(prepared, 0, false, 1);
        self.compute.check_binding(plan.largest_buffer)?;
        if let (Some(budget), Some(kept)) = (self.budget, self.kept.bytes())
            && plan.encoding_bytes(kept) > budget
        {
            self.kept.clear();
        }
        let pixel_values = std::mem::take(&mut prepared.pixel_values);
        Ok(Some(self.model.encode_images(pixel_values, &prepared.grids)?))
    }

    /// The same, unless `cache`, which belongs to this engine, has the features of these photos.
    ///
    /// # Errors
    /// As [`Engine::encode`].
    pub fn encode_cached(
        &self,
        prepared: &mut Prepared,
        cache: &FeatureCache,
    ) -> Result<Option<Tensor<2>>> {
        if prepared.grids.is_empty() {
            return Ok(None);
        }
        let key = features::key(prepared);
        if let Some(features) = cache.get(&key) {
            prepared.pixel_values = Vec::new();
            return Ok(Some(features));
        }
        let features = self.encode(prepared)?;
        if let Some(features) = &features {
            cache.insert(key, features);
        }
        Ok(features)
    }

    /// Gives up the vision tower and hands its memory back to the driver. Prompts without photos
    /// and photos in a [`FeatureCache`] still work.
    ///
    /// # Errors
    /// [`Error::Ops`] if the device was lost.
    pub fn release_vision(&mut self) -> Result<()> {
        self.model.release_vision();
        Ok(self.compute.free_unused()?)
    }

    /// Gives up what was kept of the last answers, their cache and recorded steps, and hands the memory back
    /// to the driver. The next answers take as much again.
    ///
    /// # Errors
    /// [`Error::Ops`] if the device was lost.
    pub fn release_kept(&self) -> Result<()> {
        self.kept.clear();
        Ok(self.compute.free_unused()?)
    }

    /// Reads the prompt, leaving room for answers of `max_tokens`.
    ///
    /// # Errors
    /// [`Error::ContextTooLong`] with all numbers, [`Error::Model`] if parts do not fit together, [`Error::Ops`]
    /// if prompt and answers need a larger buffer than the adapter binds.
    pub fn prefill(
        &self,
        prepared: &Prepared,
        features: Option<Tensor<2>>,
        max_tokens: usize,
    ) -> Result<Session> {
        self.prefill_for(prepared, features, max_tokens, 1)
    }

    /// The same with room for several answers at once.
    ///
    /// # Errors
    /// As [`Engine::prefill`].
    pub fn prefill_for(
        &self,
        prepared: &Prepared,
        features: Option<Tensor<2>>,
        max_tokens: usize,
        answers: usize,
    ) -> Result<Session> {
        self.check_context(prepared, max_tokens)?;
        let answers = if self.model.can_batch() { answers } else { 1 };
        let size = [prepared.ids.len().next_multiple_of(self.bucket()), max_tokens, answers];
        let plan = self.plan(prepared, max_tokens, true, answers);
        self.compute.check_binding(plan.largest_buffer)?;
        let new = || Room::new(self.model.cache(size[0], size[1], size[2]), size, plan);
        let mut room = self.kept.lend(size, new);
        let (ids, grids) = (&prepared.ids, &prepared.grids);
        let logits = self.model.prefill(ids, features, grids, &mut room.cache)?;
        Ok(Session { room, prompt: prepared.ids.clone(), logits })
    }

    /// Errors unless the model reads that much. Sizes are computed after this: they cannot overflow.
    pub(crate) fn check_context(&self, prepared: &Prepared, max_tokens: usize) -> Result<()> {
        let limit = self.model.config().text.max_position_embeddings;
        let (prompt, image) = (prepared.ids.len(), prepared.n_image_tokens);
        match prompt.saturating_add(max_tokens) > limit {
            true => Err(Error::ContextTooLong { prompt, image, max_tokens, limit }),
            false => Ok(()),
        }
    }
}

/// Small files first: a folder that cannot work fails before its weights are read.
async fn checked<F: Files>(
    files: &F,
    compute: &Compute,
    options: &LoadOptions,
) -> Result<(Config, Reader, StopTokens)> {
    let config = Config::load(files).await?;
    let (reader, stop) = small_files(files, &config).await?;
    if let Some(budget) = options.budget {
        let dense = options.precision == Precision::Reference || !compute.is_gpu();
        plan_with(files, &config, &reader, dense, &options.demand).await?.check(budget)?;
    }
    Ok((config, reader, stop))
}

async fn small_files<F: Files>(files: &F, config: &Config) -> Result<(Reader, StopTokens)> {
    let tokenizer = Tokenizer::load(files).await?;
    let template = ChatTemplate::load(files).await?;
    let stop = StopTokens::load(files, &tokenizer).await?;
    let preprocessor = load_preprocessor(files).await?;
    let reader = Reader { tokenizer, template, preprocessor };
    reader.check(config)?;
    Ok((reader, stop))
}

/// Whether what stands beside the weights can be used: tokenizer, chat template and preprocessing, there and for this
/// configuration.
///
/// # Errors
/// Those of [`Engine::load`] for these files.
pub async fn check_small_files<F: Files>(files: &F, config: &Config) -> Result<()> {
    small_files(files, config).await.map(|_| ())
}

pub(crate) async fn load_preprocessor<F: Files>(files: &F) -> Result<PreprocessorConfig> {
    for name in ["processor_config.json", "preprocessor_config.json"] {
        let Some(json) = read_file(files, name).await? else { continue };
        // Older folders keep only text settings in the first of the two.
        if name == "preprocessor_config.json" || contains(&json, b"\"image_processor\"") {
            return Ok(PreprocessorConfig::from_json(&json)?);
        }
    }
    Err(globe_model::Error::MissingFile { file: "preprocessor_config.json" }.into())
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
