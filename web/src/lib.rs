//! The browser border: the engine behind JavaScript values, and nothing else.
//!
//! Built for wasm32 only; elsewhere the crate is empty, so that a workspace build skips it.

#![cfg(target_family = "wasm")]

mod digest;
mod engine;
mod error;
mod files;
mod heap;
mod options;
mod photo;
mod start;

pub use digest::Sha256;
pub use engine::WebEngine;
pub use files::{JsFile, JsFiles};
pub use photo::inspect;
pub use start::{Stop, last_panic, start};
