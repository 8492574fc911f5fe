//! Every WGSL kernel, the table that names them, and the linker.
//!
//! No GPU crate: the text is data, and the checks in `tests/` validate it without a device.

mod link;
mod program;

pub use link::{LinkError, link};
pub use program::{Fragment, KvFormat, Norm, Program, QUADS, Reduce, Stage, Team, WeightFormat};

/// A file as `build.rs` wrote it.
macro_rules! bare {
    ($folder:literal, $name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), $folder, $name, ".wgsl"))
    };
}

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

            /// The code of the file without its comments, imports not yet resolved.
            pub const fn file(self) -> &'static str {
                match self { $(Self::$variant => bare!("/", $name),)+ }
            }
        }
    };
}

kernels! {
    /// One step of AdamW.
    Adamw => "adamw",
    /// One step of AdamW with means in 8 bits.
    Adamw8bit => "adamw_8bit",
    /// Chosen tokens noted, every row of a batch moved on by one.
    Advance => "advance",
    /// Softmax attention over a key range per query, scores never stored.
    Attention => "attention",
    /// Gradients of keys and values of attention.
    AttentionBackwardDkv => "attention_backward_dkv",
    /// The same for adapters whose loads are dear.
    AttentionBackwardDkvLanes => "attention_backward_dkv_lanes",
    /// Gradient of the queries of attention.
    AttentionBackwardDq => "attention_backward_dq",
    /// The same for adapters whose loads are dear.
    AttentionBackwardDqLanes => "attention_backward_dq_lanes",
    /// What the backward pass of attention needs of each query.
    AttentionBackwardStats => "attention_backward_stats",
    /// Softmax attention for adapters whose loads are dear.
    AttentionLanes => "attention_lanes",
    /// Parts of one token's attention put together.
    AttentionMerge => "attention_merge",
    /// Softmax attention over a key range per query, in workgroups of four.
    AttentionQuads => "attention_quads",
    /// One part of one token's attention.
    AttentionSplit => "attention_split",
    /// The same for adapters whose loads are dear.
    AttentionSplitLanes => "attention_split_lanes",
    /// One part of one token's attention, in workgroups of four.
    AttentionSplitQuads => "attention_split_quads",
    /// Bytes moved, for measuring.
    BenchCopy => "bench_copy",
    /// Numbers multiplied, for measuring.
    BenchFma => "bench_fma",
    /// Columns added up, in place.
    ColumnSums => "column_sums",
    /// Rows of a table by index.
    GatherRows => "gather_rows",
    /// Exact GELU.
    Gelu => "gelu",
    /// Gradient of the exact GELU.
    GeluBackward => "gelu_backward",
    /// Matrix product with bias, tiled.
    Linear => "linear",
    /// Gradient of a weight, added up.
    LinearBackwardWeight => "linear_backward_weight",
    /// The same for adapters whose loads are dear.
    LinearBackwardWeightLanes => "linear_backward_weight_lanes",
    /// Matrix product with bias for few rows.
    LinearRow => "linear_row",
    /// Log-probabilities of chosen tokens, with entropy.
    LogpGather => "logp_gather",
    /// Gradient of logits from that of log-probabilities.
    LogpGatherBackward => "logp_gather_backward",
    /// Rows of a packed table by index.
    PackedGather => "packed_gather",
    /// Gradient of the input of a product with a packed matrix.
    PackedLinearBackward => "packed_linear_backward",
    /// The same for adapters whose loads are dear.
    PackedLinearBackwardLanes => "packed_linear_backward_lanes",
    /// Product with a packed matrix by cooperative matrices.
    PackedLinearCooperative => "packed_linear_cooperative",
    /// Product with a packed matrix by integers of 8 bits.
    PackedLinearDot => "packed_linear_dot",
    /// Product with a packed matrix for few rows.
    PackedLinearFew => "packed_linear_few",
    /// Product with a packed matrix, a weight row per lane.
    PackedLinearLanes => "packed_linear_lanes",
    /// The same for 16 rows at once.
    PackedLinearManyLanes => "packed_linear_many_lanes",
    /// Product of one row with a packed matrix in subgroups of four.
    PackedLinearQuadRow => "packed_linear_quad_row",
    /// Product with a packed matrix in subgroups of four.
    PackedLinearQuads => "packed_linear_quads",
    /// Product with a packed matrix, tiled.
    PackedLinearTile => "packed_linear_tile",
    /// Root-mean-square norm.
    RmsNorm => "rms_norm",
    /// Gradient of the root-mean-square norm by its input.
    RmsNormBackward => "rms_norm_backward",
    /// Gradient of the root-mean-square norm by its weight, part by part.
    RmsNormBackwardWeight => "rms_norm_backward_weight",
    /// Rotary position embedding.
    Rotary => "rotary",
    /// Queries, keys and values split, turned and written to their places.
    RotarySplit => "rotary_split",
    /// Gradients of queries, keys and values put together, turned back.
    RotarySplitBackward => "rotary_split_backward",
    /// The next token by penalties, temperature, top-k, top-p and one draw.
    Sample => "sample",
    /// The same from what many workgroups found.
    SampleMerge => "sample_merge",
    /// What each workgroup finds in its part of the vocabulary.
    SampleParts => "sample_parts",
    /// Rows added to a larger buffer by index, in place.
    ScatterAddRows => "scatter_add_rows",
    /// Rows written into a larger buffer by index, in place.
    ScatterRows => "scatter_rows",
    /// silu(gate) * up.
    SiluMul => "silu_mul",
    /// Sums of squares, slice by slice.
    SumSquares => "sum_squares",
    /// silu(gate) * up, columns interleaved.
    Swiglu => "swiglu",
    /// Gradient of silu(gate) * up, columns interleaved.
    SwigluBackward => "swiglu_backward",
}

macro_rules! shared {
    ($($name:literal,)+) => {
        /// Files that kernels import: functions, constants and their own workgroup memory.
        pub const SHARED: &[(&str, &str)] =
            &[$(($name, bare!("/shared/", $name)),)+];
    };
}

shared! {
    "attention_four",
    "attention_keys",
    "attention_lanes",
    "attention_rows",
    "attention_span",
    "attention_tile",
    "eights_plain",
    "eights_q4",
    "eights_q8",
    "erf",
    "four_lanes",
    "fragment_16_32",
    "fragment_8_32",
    "fragment_8_8",
    "integers_q4",
    "integers_q8",
    "kv_f16",
    "kv_f32",
    "norm_none",
    "norm_rms",
    "packed",
    "parts_1",
    "parts_2",
    "parts_3",
    "parts_4",
    "philox",
    "quads_4",
    "quads_8",
    "quads_16",
    "quads_24",
    "quads_32",
    "reduce_eight",
    "reduce_four",
    "reduce_wide",
    "rows_1",
    "rows_4",
    "rows_8",
    "rows_16",
    "sampling",
    "sampling_cut",
    "sampling_heat",
    "scales_blocks",
    "scales_none",
    "stage_f16",
    "stage_f32",
    "team_plain",
    "team_subgroup",
    "weights_bf16",
    "weights_f16",
    "weights_f32",
    "weights_q4",
    "weights_q8",
}
