//! What can go wrong, and what to do about it.

use std::path::PathBuf;

use crate::peer::Peer;

/// Everything that ends the program or one of its measurements.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written: free some space, or choose another folder with `TMPDIR`.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A program cannot be started: check its path.
    #[error("cannot start {}: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A program ended early; its last words say why.
    #[error("{program} ended with {status}: {last_words}")]
    Ended {
        /// The program.
        program: String,
        /// Its exit status or signal.
        status: std::process::ExitStatus,
        /// The end of what it wrote to standard error.
        last_words: String,
    },
    /// A program answered something else than the JSON that was asked for: it is of another version.
    #[error("cannot read the answer of {program}: {source}")]
    Answer {
        /// The program.
        program: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The peer refuses the model or the work.
    #[cfg(any(feature = "llama", feature = "candle"))]
    #[error("{step}: {reason}")]
    Peer {
        /// What was tried.
        step: &'static str,
        /// In the peer's words.
        reason: String,
    },
    /// The peer's program lacks it: build with the feature.
    #[cfg(not(all(feature = "vulkan", feature = "candle")))]
    #[error("built without the feature `{0}`")]
    Feature(&'static str),
    /// There is no device that the peer could run on.
    #[cfg(feature = "vulkan")]
    #[error("no Vulkan device {index}: install a driver, or choose another --vulkan-device")]
    Device {
        /// The one that was asked for.
        index: usize,
    },
    /// The logits are no numbers, so that the time says nothing.
    #[cfg(any(feature = "llama", feature = "candle", test))]
    #[error("the logits are not finite")]
    NotFinite,
    /// Not among `--peers`.
    #[error("not asked for")]
    NotAsked,
    /// No peer could be measured, and the reasons are in the table.
    #[error("nothing was measured: see the reasons below the table")]
    NothingMeasured,
    /// The answer of a program does not hold what was asked for.
    #[error("{peer} answered without {what}")]
    Missing {
        /// Which.
        peer: Peer,
        /// What is missing.
        what: &'static str,
    },
}

/// Of this program.
pub type Result<T> = std::result::Result<T, Error>;
