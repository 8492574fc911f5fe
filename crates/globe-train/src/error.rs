//! The one error type of this crate.

use std::{io, path::PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why training could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The terms of one answer do not fit together: the policy returned something else than asked.
    #[error("loss: answer {sequence} of the micro-batch: {reason}")]
    Loss {
        /// Position in the micro-batch.
        sequence: usize,
        /// What does not fit.
        reason: String,
    },
    /// A tensor has another size than its parameter: the file belongs to another model.
    #[error("`{name}`: expected shape {expected:?}, got {got:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Shape that fits.
        expected: Vec<usize>,
        /// Shape found.
        got: Vec<usize>,
    },
    /// A tensor is absent: the file belongs to another model or is not a checkpoint.
    #[error("tensor `{name}` not found")]
    MissingTensor {
        /// Name asked for.
        name: String,
    },
    /// A tensor file could not be written or read.
    #[error(transparent)]
    Format(#[from] globe_format::Error),
    /// Gradients are no numbers any more: lower the learning rate, or look at the last samples.
    #[error(
        "the gradient was not finite (norm {norm}) for {steps} steps in a row; lower the learning \
         rate or go back to an earlier checkpoint"
    )]
    NotFinite {
        /// Steps without a good one between.
        steps: u64,
        /// The last norm.
        norm: f64,
    },
    /// A reward broke its contract: a fault in the reward, or in the model behind it.
    #[error("reward `{name}`: {reason}")]
    Reward {
        /// Name of the reward.
        name: String,
        /// What it returned.
        reason: String,
    },
    /// The reward server does not answer: start it, or check the address, then resume.
    #[error("reward server {url}: {reason}")]
    Judge {
        /// Address as configured.
        url: String,
        /// What happened last.
        reason: String,
    },
    /// A row does not fit: correct it, `data check` lists all of them.
    #[error("{}, row {row}{}: {reason}", file.display(), column_label(column))]
    Data {
        /// Data file.
        file: PathBuf,
        /// Row, counted from 1 without a header; 0 is the header.
        row: usize,
        /// Column, if one is at fault.
        column: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The parquet file is damaged or uses a compression other than none, snappy or gzip.
    #[error("{}: {reason}; known compressions are none, snappy and gzip", file.display())]
    Parquet {
        /// Data file.
        file: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// No data file: name a `.parquet`, `.jsonl` or `.csv` file, or a folder with such files.
    #[error("{}: no .parquet, .jsonl or .csv file", path.display())]
    DataFormat {
        /// Path as given.
        path: PathBuf,
    },
    /// The data files have no rows.
    #[error("{}: no rows", path.display())]
    EmptyData {
        /// Path as given.
        path: PathBuf,
    },
    /// Not one photo of a whole pass could be used: check the image folder.
    #[error("none of {rows} photos can be used; first: {first}")]
    NoImages {
        /// Rows tried.
        rows: u64,
        /// The first of them with its reason.
        first: String,
    },
    /// A data file is shorter than when training began: restore it.
    #[error("row {row} of block {block} is gone; the data files changed while training ran")]
    DataChanged {
        /// Block in the order of the files.
        block: usize,
        /// Row within it.
        row: usize,
    },
    /// The configuration is not usable: correct the line named.
    #[error("{at}: {reason}")]
    Config {
        /// File, and line where known.
        at: String,
        /// What is wrong, with the nearest key.
        reason: String,
    },
    /// A checkpoint is damaged: go on from the one before it, or start anew.
    #[error("{}: damaged: {reason}; {}", path.display(), offer(previous))]
    CheckpointCorrupt {
        /// Its folder.
        path: PathBuf,
        /// The first fault.
        reason: String,
        /// The newest sound one before it.
        previous: Option<PathBuf>,
    },
    /// The adapter cannot be used: it is damaged, or of a kind globe does not know.
    #[error("{}: {reason}", path.display())]
    Adapter {
        /// Its folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The policy failed.
    #[error(transparent)]
    Policy(#[from] crate::PolicyError),
    /// The policy returned something else than asked: a fault in its implementation.
    #[error("policy: {call}: {reason}")]
    PolicyContract {
        /// Which call.
        call: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// The configuration is not that of the checkpoint: undo the changes, or allow them.
    #[error("the configuration changed since the checkpoint:\n  {}", differences.join("\n  "))]
    ResumeChanged {
        /// Every difference that matters.
        differences: Vec<String>,
    },
    /// The checkpoint belongs to another base model: name that one.
    #[error("{}: made with base `{saved}`, but the model is `{got}`", path.display())]
    ResumeOther {
        /// The checkpoint.
        path: PathBuf,
        /// Identity in the checkpoint.
        saved: String,
        /// Identity of the policy.
        got: String,
    },
    /// Training stopped; what was learnt up to a checkpoint is saved. Remove the cause and resume.
    #[error("{cause}; the last checkpoint is {}, resume from there", checkpoint.display())]
    Interrupted {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Why.
        cause: Box<Error>,
    },
    /// Training stopped, and the checkpoint could not be saved either.
    #[error("{cause}; and no checkpoint could be saved: {error}")]
    Unsaved {
        /// Why it could not be saved.
        error: Box<Error>,
        /// Why training stopped.
        cause: Box<Error>,
    },
    /// A row lacks what this kind of training needs.
    #[error("{id}: {reason}")]
    Row {
        /// Id of the row.
        id: String,
        /// What is missing.
        reason: String,
    },
    /// A file or folder could not be used: check path, permissions and free space.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// What was attempted, such as `cannot write`.
        doing: &'static str,
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: attaches the path and what was being done.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

fn column_label(column: &str) -> String {
    if column.is_empty() { String::new() } else { format!(", column `{column}`") }
}

fn offer(previous: &Option<PathBuf>) -> String {
    match previous {
        Some(path) => format!("{} is sound, resume from it", path.display()),
        None => "there is no sound checkpoint before it".into(),
    }
}
