//! The one error type of this crate.

/// What went wrong in an op or on the device.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller passed a tensor of the wrong shape: compare the model's configuration with its weights.
    #[error("{op}: `{what}` should have shape {expected:?}, got {got:?}")]
    Shape {
        /// The op that was called.
        op: &'static str,
        /// The argument.
        what: &'static str,
        /// The shape it should have.
        expected: Vec<usize>,
        /// The shape it has.
        got: Vec<usize>,
    },
    /// A size is outside what the kernel supports: the model cannot run here.
    #[error("{op}: {what} is {got}, supported is {supported}")]
    Unsupported {
        /// The op that was called.
        op: &'static str,
        /// The quantity.
        what: &'static str,
        /// Its value.
        got: usize,
        /// The values that work.
        supported: &'static str,
    },
    /// No adapter of the wanted kind: choose another `--device`, or install a Vulkan driver.
    #[error(
        "no {wanted} adapter found ({reason}); try --device cpu, or install a Vulkan driver (Debian: mesa-vulkan-drivers)"
    )]
    NoAdapter {
        /// The kind asked for.
        wanted: &'static str,
        /// What the runtime said.
        reason: String,
    },
    /// `GLOBE_LINEAR`, `GLOBE_REPLAY` or `GLOBE_REDUCE` names what the adapter cannot do: leave it unset, or name another.
    #[error("{variable}={wanted}: {adapter} has no such choice; it has {choices}")]
    Variant {
        /// The environment variable.
        variable: &'static str,
        /// What it holds.
        wanted: String,
        /// The adapter that was opened.
        adapter: String,
        /// Names that it would take.
        choices: String,
    },
    /// The device failed or was lost while it computed: restart, and choose another `--device` if it repeats.
    #[error("device failed: {reason}; run again, or choose another --device")]
    Device {
        /// What the runtime said.
        reason: String,
    },
    /// A tensor is larger than one buffer of this adapter may be.
    #[error(
        "a tensor of {size_bytes} bytes exceeds what this adapter can bind ({limit_bytes} bytes); use a smaller model or --device cpu"
    )]
    TooLarge {
        /// Size of the tensor.
        size_bytes: u64,
        /// The adapter's limit.
        limit_bytes: u64,
    },
}

/// Result of an op.
pub type Result<T> = std::result::Result<T, Error>;
