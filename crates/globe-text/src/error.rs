//! The one error type of this crate.

use crate::chat::TemplateSource;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why text could not become tokens, or tokens text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the model folder could not be read: see the inner error.
    #[error(transparent)]
    Format(#[from] globe_format::Error),
    /// A configuration file is not what it should be: download it again.
    #[error("{file}: {reason}; download it again")]
    Json {
        /// Offending file.
        file: String,
        /// What is wrong, with the field where known.
        reason: String,
    },
    /// The tokenizer is of another kind: use the files of a Qwen model.
    #[error("tokenizer.json: its decoder is not byte-level; use the one of a Qwen model")]
    NotByteLevel,
    /// The tokenizer failed on a text: report the text.
    #[error("tokenizer: {reason}")]
    Tokenize {
        /// What the tokenizer said.
        reason: String,
    },
    /// The vocabulary lacks a token of the prompt format: it belongs to another model.
    #[error("tokenizer.json: no token `{token}`; wrong vocabulary, use the model's own")]
    MissingToken {
        /// Text of the token.
        token: String,
    },
    /// The tokenizer knows more tokens than the model: they do not belong together.
    #[error(
        "tokenizer.json: token `{token}` has id {id}, but the model has a vocabulary of \
         {model_vocab}; wrong vocabulary, use the model's own"
    )]
    VocabTooLarge {
        /// Text of the last token.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the model's embedding.
        model_vocab: usize,
    },
    /// The chat template does not parse: fix or remove it to use the built-in one.
    #[error("{source_file}, line {line}: chat template: {reason}; fix it or remove the file")]
    TemplateSyntax {
        /// Where the template came from.
        source_file: TemplateSource,
        /// Line in the template, from 1; 0 when unknown.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// The chat template failed on these messages, perhaps on purpose: read the reason.
    #[error("{source_file}, line {line}: chat template: {reason}")]
    TemplateRender {
        /// Where the template came from.
        source_file: TemplateSource,
        /// Line in the template, from 1; 0 when unknown.
        line: usize,
        /// What the template said.
        reason: String,
    },
    /// Images and placeholders differ in number: the template dropped or repeated an image.
    #[error(
        "prompt has {placeholders} image placeholders but {images} images; \
         check the chat template and keep placeholders out of the prompt text"
    )]
    ImageCount {
        /// Placeholders in the ids.
        placeholders: usize,
        /// Images given.
        images: usize,
    },
}
