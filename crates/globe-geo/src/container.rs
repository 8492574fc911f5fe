//! The outer layer of a gazetteer file: magic, format, digest, version, compressed payload.

use std::io::Read;

use ruzstd::decoding::StreamingDecoder;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

const MAGIC: &[u8] = b"GLOBEGAZ";
const FORMAT: u16 = 1;
const DIGEST_BYTES: usize = 32;
/// Several times the full tier; a larger claim is an error and not an allocation.
const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// A file taken apart and verified.
#[derive(Debug)]
pub(crate) struct Container {
    pub version: String,
    pub payload: Vec<u8>,
}

/// Magic, format, digest of the rest, length and text of the version, payload size, zstd frame.
pub(crate) fn open(bytes: &[u8]) -> Result<Container> {
    let size = bytes.len();
    let rest = bytes.strip_prefix(MAGIC).ok_or(Error::NotAGazetteer { size })?;
    let (format, rest) = rest.split_first_chunk().ok_or(Error::Truncated { size })?;
    let found = u16::from_le_bytes(*format);
    if found != FORMAT {
        return Err(Error::Format { found, expected: FORMAT });
    }
    let (digest, body) =
        rest.split_first_chunk::<DIGEST_BYTES>().ok_or(Error::Truncated { size })?;
    verify(digest, body)?;
    let truncated = || Error::Truncated { size };
    let (&version_len, rest) = body.split_first().ok_or_else(truncated)?;
    let (version, rest) = rest.split_at_checked(version_len.into()).ok_or_else(truncated)?;
    let (raw_len, packed) = rest.split_first_chunk().ok_or_else(truncated)?;
    Ok(Container {
        version: String::from_utf8_lossy(version).into_owned(),
        payload: decompress(packed, u32::from_le_bytes(*raw_len))?,
    })
}

fn verify(expected: &[u8], body: &[u8]) -> Result<()> {
    let found = Sha256::digest(body);
    if found.as_slice() == expected {
        return Ok(());
    }
    Err(Error::Checksum { found: hex(&found), expected: hex(expected) })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn decompress(packed: &[u8], raw_len: u32) -> Result<Vec<u8>> {
    let failed = |reason: String| Error::Compression { reason };
    let raw_len = raw_len as usize;
    if raw_len > MAX_PAYLOAD_BYTES {
        return Err(failed(format!("{raw_len} bytes claimed, limit {MAX_PAYLOAD_BYTES}")));
    }
    let decoder = StreamingDecoder::new(packed).map_err(|e| failed(e.to_string()))?;
    let mut payload = Vec::with_capacity(raw_len);
    // One byte over the claim is enough to see that it is wrong.
    decoder
        .take(raw_len as u64 + 1)
        .read_to_end(&mut payload)
        .map_err(|e| failed(e.to_string()))?;
    if payload.len() != raw_len {
        return Err(failed(format!("{} bytes or more, {raw_len} claimed", payload.len())));
    }
    Ok(payload)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file with a right digest around any body.
    pub(crate) fn sealed(body: &[u8]) -> Vec<u8> {
        let digest = Sha256::digest(body);
        [MAGIC, FORMAT.to_le_bytes().as_slice(), digest.as_slice(), body].concat()
    }

    /// A sealed file around an uncompressed payload, as one zstd frame of raw blocks.
    pub(crate) fn sealed_payload(payload: &[u8]) -> Vec<u8> {
        let mut body = vec![1, b't'];
        body.extend((payload.len() as u32).to_le_bytes());
        body.extend([0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x58]); // magic, no content size, 2 MiB window
        let mut blocks = payload.chunks(100_000).peekable();
        if blocks.peek().is_none() {
            body.extend([1, 0, 0]);
        }
        while let Some(block) = blocks.next() {
            let header = (block.len() as u32) << 3 | u32::from(blocks.peek().is_none());
            body.extend(&header.to_le_bytes()[..3]);
            body.extend(block);
        }
        sealed(&body)
    }

    #[test]
    fn reads_what_was_sealed() {
        let payload: Vec<u8> = (0..250_000_u32).map(|i| i as u8).collect();
        let opened = open(&sealed_payload(&payload)).unwrap();
        assert_eq!(opened.version, "t");
        assert_eq!(opened.payload, payload);
    }

    #[test]
    fn names_the_fault() {
        assert_eq!(open(b"PK").unwrap_err(), Error::NotAGazetteer { size: 2 });
        assert_eq!(open(MAGIC).unwrap_err(), Error::Truncated { size: 8 });
        let mut other = sealed(b"");
        other[8] = 9;
        assert_eq!(open(&other).unwrap_err(), Error::Format { found: 9, expected: FORMAT });
        assert!(matches!(open(&sealed(b"")), Err(Error::Truncated { .. })));
        assert!(matches!(open(&sealed(&[0, 1, 0, 0, 0, 7])), Err(Error::Compression { .. })));
        let huge = sealed(&[0, 255, 255, 255, 255]);
        assert!(open(&huge).unwrap_err().to_string().contains("limit"));
    }
}
