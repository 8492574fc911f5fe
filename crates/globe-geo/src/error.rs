//! The one error type of this crate.

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a gazetteer could not be loaded or a word not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are of something else: pass a `.gaz` file made by `build_gazetteer.py`.
    #[error("gazetteer: not a gazetteer file ({size} bytes); pass full.gaz or light.gaz")]
    NotAGazetteer {
        /// Bytes given.
        size: usize,
    },
    /// The file ends inside its header: fetch it again.
    #[error("gazetteer: {size} bytes end inside the header; the file is truncated, fetch it again")]
    Truncated {
        /// Bytes given.
        size: usize,
    },
    /// The layout is of another release: use the file that ships with this one.
    #[error("gazetteer: format {found}, this build reads {expected}; use the file of this release")]
    Format {
        /// Format number in the file.
        found: u16,
        /// Format number this build reads.
        expected: u16,
    },
    /// The content does not match its digest: the file is damaged or cut short, fetch it again.
    #[error(
        "gazetteer: sha-256 of the payload is {found}, the header says {expected}; \
         the file is damaged or truncated, fetch it again"
    )]
    Checksum {
        /// Digest of the bytes, in hex.
        found: String,
        /// Digest in the header, in hex.
        expected: String,
    },
    /// The digest is right but the compressed stream is not: rebuild the file.
    #[error(
        "gazetteer: cannot decompress the payload: {reason}; rebuild it with build_gazetteer.py"
    )]
    Compression {
        /// What the decoder said.
        reason: String,
    },
    /// The digest is right but a table is not: rebuild the file.
    #[error(
        "gazetteer: bad {table} at byte {at} of the payload; rebuild it with build_gazetteer.py"
    )]
    Malformed {
        /// Table or column being read.
        table: &'static str,
        /// Offset in the decompressed payload.
        at: usize,
    },
    /// The word is no precision: use one of those named.
    #[error("precision `{found}` is not known; use country, region or city")]
    UnknownPrecision {
        /// Word given.
        found: String,
    },
}
