//! Prompts to token ids and back: tokenizer, chat template, prompt contract.
//!
//! A request goes through four steps: [`Prompt`] to [`Message`]s, [`ChatTemplate::render`] to
//! text, [`Tokenizer::encode`] to ids, [`expand_images`] to one id per image token. The answer
//! comes back through a [`Detokenizer`].

mod chat;
mod error;
mod images;
mod json;
mod prompt;
mod stop;
mod strftime;
mod tokenizer;

pub use chat::{ChatTemplate, Content, Message, Role, TemplateSource};
pub use error::{Error, Result};
pub use images::expand_images;
pub use prompt::Prompt;
pub use stop::StopTokens;
pub use tokenizer::{Detokenizer, TOKENIZER_FILE, Tokenizer};
