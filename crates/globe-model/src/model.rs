//! What the engine sees of any architecture.

use globe_format::{Checkpoint, DtypeSummary, Files};
use globe_ops::{Compute, Int, Tensor};

use crate::{Cache, Config, Error, Qwen2_5Vl, Result};

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
    /// Bytes per number format.
    pub dtypes: Vec<DtypeSummary>,
    /// Bytes of the weights as stored.
    pub stored_bytes: u64,
    /// Bytes of the weights on the device.
    pub device_bytes: u64,
    /// Bytes of the cache for one token.
    pub cache_bytes_per_token: u64,
}

impl Model {
    /// Reads `config.json` and the weight headers, checks that they fit together, and uploads
    /// the weights tensor by tensor; `progress` gets tensors done and in all.
    ///
    /// # Errors
    /// [`Error`] naming the file, the field and what to do.
    pub async fn load<F: Files>(
        files: &F,
        compute: &Compute,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let config = Config::load(files).await?;
        let checkpoint = open_checked(files, &config).await?;
        Ok(Self::Qwen2_5Vl(Qwen2_5Vl::load(config, &checkpoint, compute, progress).await?))
    }

    /// What the folder holds, its names and shapes checked.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub async fn inspect<F: Files>(files: &F) -> Result<Summary> {
        let config = Config::load(files).await?;
        let checkpoint = open_checked(files, &config).await?;
        let n_parameters: u64 = checkpoint
            .names()
            .filter_map(|name| checkpoint.info(name))
            .map(|info| info.n_elements() as u64)
            .sum();
        let text = &config.text;
        let row = 2 * text.n_kv_heads() * text.head_dim() * size_of::<f32>();
        Ok(Summary {
            architecture: Qwen2_5Vl::ARCHITECTURE,
            n_tensors: checkpoint.names().count(),
            n_parameters,
            dtypes: checkpoint.dtype_summary(),
            stored_bytes: checkpoint.total_bytes(),
            device_bytes: n_parameters * size_of::<f32>() as u64,
            cache_bytes_per_token: (text.num_hidden_layers * row) as u64,
            config,
        })
    }

    /// The weights of a checkpoint under the names of the model, its names and shapes checked.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub async fn checkpoint<F: Files>(files: &F) -> Result<(Config, Checkpoint<F::Source>)> {
        let config = Config::load(files).await?;
        let checkpoint = open_checked(files, &config).await?;
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

    /// Tokens that an image of this grid takes in the prompt.
    ///
    /// # Errors
    /// [`Error::Grid`] if the grid does not merge.
    pub fn image_tokens(&self, grid: ImageGrid) -> Result<usize> {
        let merge = self.config().vision.spatial_merge_size;
        Ok(grid.merged(merge)?.iter().product())
    }

    /// An empty cache for `capacity` tokens.
    pub fn cache(&self, capacity: usize) -> Cache {
        match self {
            Self::Qwen2_5Vl(model) => model.cache(capacity),
        }
    }

    /// Features of the images, one row per merged token: `[tokens, hidden_size]`.
    /// `pixel_values`: the patches of all images, one after the other.
    ///
    /// # Errors
    /// [`Error::Grid`], or [`Error::Ops`] if the patches do not fit the grids or the device fails.
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
            Self::Qwen2_5Vl(model) => model.prefill(ids, images, grids, cache, &mut |_, _| {}),
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
}

async fn open_checked<F: Files>(files: &F, config: &Config) -> Result<Checkpoint<F::Source>> {
    let checkpoint = Checkpoint::open(files).await?.rename(Qwen2_5Vl::canonical_name)?;
    let ignored = |name: &str| Qwen2_5Vl::is_ignored(config, name);
    checkpoint.check_names(&Qwen2_5Vl::tensor_shapes(config), ignored)?;
    Ok(checkpoint)
}
