//! The models of `globe bench --shape`.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A size of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Shape {
    /// Qwen2.5-0.5B with a vocabulary of 32,000 and a tower of 12 blocks
    #[value(name = "0.5b")]
    #[serde(rename = "0.5b")]
    Half,
    /// Qwen2.5-VL-3B
    #[value(name = "3b")]
    #[serde(rename = "3b")]
    Three,
    /// Qwen2.5-VL-7B
    #[value(name = "7b")]
    #[serde(rename = "7b")]
    Seven,
}

/// The numbers of a shape.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Layers.
    pub layers: usize,
    /// Values per token between the layers.
    pub hidden: usize,
    /// Values per token within an MLP.
    pub ffn: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Tokens that there are.
    pub vocab: usize,
    /// Whether the embedding is the head as well.
    pub tied: bool,
}

/// The numbers of the vision tower of a shape.
#[derive(Clone, Copy, Debug)]
pub struct VisionDims {
    /// Blocks.
    pub depth: usize,
    /// Values per patch between the blocks.
    pub hidden: usize,
    /// Values per patch within an MLP.
    pub ffn: usize,
    /// Heads.
    pub heads: usize,
}

impl Dims {
    /// Values per head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Values per token of the keys.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim()
    }
}

impl Shape {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Half => "0.5b",
            Self::Three => "3b",
            Self::Seven => "7b",
        }
    }

    /// Its numbers: those of `native/src/bench/shape.rs`.
    pub fn dims(self) -> Dims {
        let (layers, hidden, ffn, heads, kv_heads, vocab, tied) = match self {
            Self::Half => (24, 896, 4864, 14, 2, 32_000, false),
            Self::Three => (36, 2048, 11_008, 16, 2, 151_936, true),
            Self::Seven => (28, 3584, 18_944, 28, 4, 152_064, false),
        };
        Dims { layers, hidden, ffn, heads, kv_heads, vocab, tied }
    }

    /// The numbers of its tower, from the same place.
    pub fn vision(self) -> VisionDims {
        let (depth, hidden, ffn, heads) = match self {
            Self::Half => (12, 768, 3072, 12),
            Self::Three | Self::Seven => (32, 1280, 3420, 16),
        };
        VisionDims { depth, hidden, ffn, heads }
    }
}
