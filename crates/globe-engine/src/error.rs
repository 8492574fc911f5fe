//! The one error type of this crate.

/// Why a photo could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A sampling value is out of range: correct the option.
    #[error("{name} is {value}, expected {expected}")]
    Sampling {
        /// The option.
        name: &'static str,
        /// Its value.
        value: f32,
        /// What works.
        expected: &'static str,
    },
    /// An option is out of range: correct it.
    #[error("{name} is {value}, expected {expected}")]
    Option {
        /// The option.
        name: &'static str,
        /// Its value.
        value: usize,
        /// What works.
        expected: &'static str,
    },
    /// Prompt and answer exceed what the model was made for.
    #[error(
        "the prompt of {prompt} tokens ({image} from images) and {max_tokens} for the answer exceed the context of {limit}; lower --max-tokens, shorten the prompt or use a smaller image"
    )]
    ContextTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Those of images among them.
        image: usize,
        /// Tokens reserved for the answer.
        max_tokens: usize,
        /// `max_position_embeddings` of the model.
        limit: usize,
    },
    /// Two files of the model folder contradict each other: download the folder again.
    #[error(
        "{file}: {field} is {got}, but config.json needs {expected}; the files belong to different models"
    )]
    Mismatch {
        /// The file.
        file: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        got: usize,
        /// The value of the model.
        expected: usize,
    },
    /// More answers at once were asked for than there is memory for: ask for fewer, or let them be
    /// cut into batches.
    #[error(
        "{wanted} answers at once need {need} bytes of device memory, {fits} fit{}; lower --batch, or leave it out to have answers cut into batches",
        budget.map_or_else(String::new, |bytes| format!(" into the budget of {bytes}"))
    )]
    BatchBeyondPlan {
        /// Answers asked for.
        wanted: u32,
        /// Answers that fit.
        fits: u32,
        /// Bytes that all of them need.
        need: u64,
        /// Bytes that may be used, unless the adapter's largest buffer is what limits them.
        budget: Option<u64>,
    },
    /// The logits are not numbers: the weights are damaged, or the device miscalculates.
    #[error(
        "the model returned logits that are not finite; verify the weights, or try --device cpu"
    )]
    NotFinite,
    /// A stop was asked for.
    #[error("cancelled")]
    Cancelled,
    /// The photo cannot be used.
    #[error(transparent)]
    Image(#[from] globe_image::Error),
    /// Tokenizer, template or prompt cannot be used.
    #[error(transparent)]
    Text(#[from] globe_text::Error),
    /// The model cannot be loaded or cannot run.
    #[error(transparent)]
    Model(globe_model::Error),
    /// Two models cannot be compared token by token: they have different vocabularies.
    #[error(
        "the models differ in vocabulary: {a} logits against {b}; compare versions of one model"
    )]
    Differ {
        /// Logits of the first.
        a: usize,
        /// Logits of the second.
        b: usize,
    },
    /// The device failed.
    #[error(transparent)]
    Ops(#[from] globe_ops::Error),
    /// A file of the model folder cannot be read.
    #[error(transparent)]
    Format(#[from] globe_format::Error),
}

impl From<globe_model::Error> for Error {
    fn from(error: globe_model::Error) -> Self {
        match error {
            globe_model::Error::Ops(error) => Self::Ops(error),
            other => Self::Model(other),
        }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
