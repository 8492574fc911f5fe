//! SHA-256 in the spelling of manifests.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    source::{self, Source},
};

/// Bytes hashed per read.
const CHUNK_BYTES: u64 = 4 << 20;

/// Lower-case hex of a finished digest.
pub(crate) fn hex(digest: Sha256) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest.finalize() {
        // A String cannot fail to grow by two characters.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Digest of bytes at hand.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

/// Feeds all bytes of a file to `sink`, chunk by chunk.
///
/// # Errors
/// An error of the source, or [`Error::Cancelled`] when `sink` returns false.
pub(crate) async fn stream<S: Source>(
    source: &S,
    file: &str,
    sink: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<()> {
    let (mut at, size) = (0, source.size_bytes());
    while at < size {
        let next = size.min(at + CHUNK_BYTES);
        if !sink(&source::read(source, file, at..next).await?) {
            return Err(Error::Cancelled);
        }
        at = next;
    }
    Ok(())
}
