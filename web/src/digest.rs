//! SHA-256 over bytes that arrive in pieces: the digest of the browser needs them all at once.

use sha2::Digest;
use wasm_bindgen::prelude::wasm_bindgen;

/// A running SHA-256.
#[wasm_bindgen]
#[derive(Default)]
pub struct Sha256(sha2::Sha256);

#[wasm_bindgen]
impl Sha256 {
    /// Of no bytes yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest in lower-case hexadecimal; the running one starts again.
    pub fn digest(&mut self) -> String {
        self.0.finalize_reset().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
