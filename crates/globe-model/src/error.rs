//! The one error type of this crate.

use crate::MemoryPlan;

/// Why a model cannot be loaded or cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is not a model: check the path.
    #[error(
        "{file} is missing; a model folder holds config.json, tokenizer.json and model*.safetensors"
    )]
    MissingFile {
        /// The file.
        file: &'static str,
    },
    /// A field of `config.json` is absent, of the wrong type or out of range: fix the file, or download it again.
    #[error("config.json: {field}: {reason}")]
    Config {
        /// Path of the field.
        field: String,
        /// What is wrong and what is expected.
        reason: String,
    },
    /// The checkpoint is of another kind: convert it, or use a supported one.
    #[error("config.json: model_type `{found}` is not supported; supported: qwen2_5_vl")]
    UnknownArchitecture {
        /// The value found.
        found: String,
    },
    /// The prompt and the answer do not fit the cache: shorten the prompt, or lower the token or pixel limit.
    #[error(
        "kv cache: {used} + {wanted} tokens exceed {capacity}; lower --max-tokens or the image size"
    )]
    CacheFull {
        /// Tokens already in the cache.
        used: usize,
        /// Tokens to be added.
        wanted: usize,
        /// Tokens that fit.
        capacity: usize,
    },
    /// More answers at once than the cache was made for: ask for fewer, or for a larger cache.
    #[error("{rows} answers at once, the cache has room for {fits}; lower --batch")]
    BatchTooLarge {
        /// Answers asked for.
        rows: usize,
        /// Answers that fit.
        fits: usize,
    },
    /// The model and what is asked of it take more memory than there is: ask for less, or use fewer bits.
    #[error(
        "{need} of device memory are needed, the budget is {limit} ({plan}); lower --max-tokens, --batch or --max-pixels, convert to fewer bits, or raise --memory-mb",
        need = crate::plan::mib(plan.device_bytes()),
        limit = crate::plan::mib(*budget)
    )]
    OverBudget {
        /// What is needed.
        plan: Box<MemoryPlan>,
        /// Bytes that may be used.
        budget: u64,
    },
    /// Training takes more memory than there is: train less at once, or an adapter.
    #[error(
        "training takes {need} of device memory, the budget is {limit}; {copy}lower \
         training.micro_batch, rollout.max_tokens or model.max_pixels, set model.weights to \
         \"qlora\", or raise GLOBE_MEMORY_MB",
        need = crate::plan::mib(*need),
        limit = crate::plan::mib(*budget),
        copy = match *reference {
            0 => String::new(),
            bytes => format!("loss.beta = 0 saves the {} of the copy before training; ", crate::plan::mib(bytes)),
        }
    )]
    TrainingOverBudget {
        /// Bytes needed.
        need: u64,
        /// Bytes that may be used.
        budget: u64,
        /// The share of a frozen copy, 0 if there is none.
        reference: u64,
    },
    /// A photo after the tower's memory was given back: load the model again.
    #[error("the vision tower was released; load the model again to read another photo")]
    VisionReleased,
    /// A token id lies outside the vocabulary: tokenizer and weights belong to different models.
    #[error(
        "token id {id} is outside the vocabulary of {vocab_size}; tokenizer.json belongs to another model"
    )]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
    /// The prompt has a different number of image tokens than the images give.
    #[error("the prompt holds {in_prompt} image tokens, the images give {from_images}")]
    ImageTokens {
        /// Image tokens among the ids.
        in_prompt: usize,
        /// Rows that the vision tower returns.
        from_images: usize,
    },
    /// An image grid does not divide into merged patches: use this model's own preprocessing.
    #[error("image grid {grid:?} does not divide by the merge size {merge}")]
    Grid {
        /// Frames, rows and columns of patches.
        grid: [usize; 3],
        /// Patches merged along each side.
        merge: usize,
    },
    /// A tensor is larger than the adapter can bind: use a smaller model or another device.
    #[error(
        "tensor `{name}` takes {size_bytes} bytes, this adapter binds at most {limit_bytes}; use a smaller model or --device cpu"
    )]
    TensorTooLarge {
        /// Name in the checkpoint.
        name: String,
        /// Its size in f32.
        size_bytes: u64,
        /// The adapter's limit.
        limit_bytes: u64,
    },
    /// A module of an adapter has another size than in this model: it belongs to another base.
    #[error(
        "adapter: {module} is {got:?}, here it is {expected:?} (outputs, inputs); the adapter belongs to another base"
    )]
    Adapter {
        /// Path of the module.
        module: String,
        /// Outputs and inputs in the model.
        expected: [usize; 2],
        /// Those found.
        got: [usize; 2],
    },
    /// A module of an adapter is not one of those that can have it: it belongs to another base.
    #[error(
        "adapter: this model has no module {module} that takes an adapter; the adapter belongs to another base"
    )]
    NoModule {
        /// Path of the module.
        module: String,
    },
    /// This model cannot be trained as asked: the reason says what to change.
    #[error("training: {reason}")]
    Training {
        /// What does not work and what to do.
        reason: String,
    },
    /// The weight files are damaged or of another model.
    #[error(transparent)]
    Format(#[from] globe_format::Error),
    /// An op was refused or the device failed.
    #[error(transparent)]
    Ops(#[from] globe_ops::Error),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
