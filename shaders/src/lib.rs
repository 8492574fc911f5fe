//! Every WGSL kernel, the table that names them, and the linker.
//!
//! No GPU crate: the text is data, and the checks in `tests/` validate it without a device.

mod link;

pub use link::{LinkError, link};

macro_rules! kernels {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)+) => {
        /// One compute kernel; the file, the op and the oracle carry the same name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kernel {
            $($(#[$doc])* $variant,)+
        }

        impl Kernel {
            /// Every kernel, in table order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name of the file without its ending.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The text of the file, imports not yet resolved.
            pub const fn file(self) -> &'static str {
                match self { $(Self::$variant => include_str!(concat!("../", $name, ".wgsl")),)+ }
            }
        }
    };
}

kernels! {
    /// Sum of two inputs and its root-mean-square norm.
    AddRmsNorm => "add_rms_norm",
    /// Index of the largest value of each row.
    Argmax => "argmax",
    /// Softmax attention over a key range per query, scores never stored.
    Attention => "attention",
    /// Rows of a table by index.
    GatherRows => "gather_rows",
    /// Exact GELU.
    Gelu => "gelu",
    /// Matrix product with bias, tiled.
    Linear => "linear",
    /// Matrix product with bias for few rows.
    LinearRow => "linear_row",
    /// Root-mean-square norm.
    RmsNorm => "rms_norm",
    /// Rotary position embedding.
    Rotary => "rotary",
    /// Rows written into a larger buffer by index, in place.
    ScatterRows => "scatter_rows",
    /// silu(gate) * up.
    SiluMul => "silu_mul",
}

/// Files that kernels import: functions, constants and their own workgroup memory.
pub const SHARED: &[(&str, &str)] = &[("reduce", include_str!("../shared/reduce.wgsl"))];

impl Kernel {
    /// The complete WGSL text.
    ///
    /// # Panics
    /// If a committed file imports an unknown name, which the tests of this crate rule out.
    pub fn source(self) -> String {
        link(self.file(), SHARED).unwrap_or_else(|e| panic!("{}.wgsl: {e}", self.name()))
    }
}
