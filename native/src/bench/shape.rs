//! Models of published sizes, without their weights.

use clap::ValueEnum;
use globe_model::Config;
use serde_json::json;

/// A size of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// 0.5 billion parameters: Qwen2.5-0.5B with a vocabulary of 32,000 and a tower of 12 blocks
    #[value(name = "0.5b")]
    Half,
    /// Qwen2.5-VL-3B
    #[value(name = "3b")]
    Three,
    /// Qwen2.5-VL-7B
    #[value(name = "7b")]
    Seven,
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

    /// The configuration.
    pub fn config(self) -> Config {
        let (layers, hidden, ffn, heads, kv_heads, vocab, tied) = match self {
            Self::Half => (24, 896, 4864, 14, 2, 32_000, false),
            Self::Three => (36, 2048, 11_008, 16, 2, 151_936, true),
            Self::Seven => (28, 3584, 18_944, 28, 4, 152_064, false),
        };
        let (depth, width, vision_ffn, vision_heads) = match self {
            Self::Half => (12, 768, 3072, 12),
            Self::Three | Self::Seven => (32, 1280, 3420, 16),
        };
        let sections = match self {
            Self::Half => [8, 12, 12],
            Self::Three | Self::Seven => [16, 24, 24],
        };
        let full: Vec<usize> = (0..depth).filter(|i| i % 8 == 7).collect();
        let json = json!({
            "model_type": "qwen2_5_vl", "vocab_size": vocab, "hidden_size": hidden,
            "intermediate_size": ffn, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "tie_word_embeddings": tied, "image_token_id": vocab - 1, "rms_norm_eps": 1e-6,
            "rope_theta": 1e6, "max_position_embeddings": 128_000,
            "rope_scaling": { "type": "mrope", "mrope_section": sections },
            "vision_config": {
                "depth": depth, "hidden_size": width, "num_heads": vision_heads,
                "intermediate_size": vision_ffn, "out_hidden_size": hidden,
                "fullatt_block_indexes": full
            }
        });
        Config::parse(json.to_string().as_bytes()).expect("the configurations above are complete")
    }
}

#[cfg(test)]
mod tests {
    use globe_model::Qwen2_5Vl;

    use super::*;

    #[test]
    fn sizes_are_what_the_names_say() {
        for (shape, low, high) in [
            (Shape::Half, 0.45e9, 0.6e9),
            (Shape::Three, 3.5e9, 4.0e9),
            (Shape::Seven, 8.0e9, 8.5e9),
        ] {
            let tensors = Qwen2_5Vl::tensor_shapes(&shape.config());
            let n: usize = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            assert!((low..high).contains(&(n as f64)), "{}: {n}", shape.name());
        }
    }
}
