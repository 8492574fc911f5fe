//! Which tensors of Qwen2.5-VL are packed together, so that a kernel reads each group at once.
//!
//! Gate and up rows alternate, one multiplication reads both; feed-forward widths grow to a
//! multiple of the block, with rows and columns of zeros, which change no result.

use globe_format::BLOCK;
use globe_format::packed::{Class, SourceRows, TensorSpec};

use crate::{Config, Qwen2_5Vl, TextConfig, VisionConfig};

impl Qwen2_5Vl {
    /// Every tensor of a packed model with this configuration. Sources have the names and shapes
    /// of [`Qwen2_5Vl::tensor_shapes`] and each is used once.
    pub fn packed_specs(config: &Config) -> Vec<TensorSpec> {
        let mut specs = vision(&config.vision);
        specs.extend(text(&config.text));
        if !config.tie_word_embeddings {
            let (rows, cols) = (config.text.vocab_size, config.text.hidden_size);
            specs.push(TensorSpec::matrix("lm_head.weight", Class::Embedding, rows, cols));
        }
        specs
    }
}

fn source(name: String, rows: usize, cols: usize) -> SourceRows {
    SourceRows { name, rows, cols, padded_rows: rows }
}

fn vision(cfg: &VisionConfig) -> Vec<TensorSpec> {
    let hidden = cfg.hidden_size;
    let merged = hidden * cfg.merge_area();
    let patch = "visual.patch_embed.proj.weight";
    let mut specs = vec![TensorSpec::matrix(patch, Class::Vision, hidden, cfg.patch_values())];
    for i in 0..cfg.depth {
        specs.extend(vision_block(&format!("visual.blocks.{i}"), cfg));
    }
    let at = |name: &str| format!("visual.merger.{name}");
    let out = cfg.out_hidden_size;
    specs.extend([
        TensorSpec::vector(at("ln_q.weight"), hidden),
        TensorSpec::matrix(at("mlp.0.weight"), Class::Vision, merged, merged),
        TensorSpec::vector(at("mlp.0.bias"), merged),
        TensorSpec::matrix(at("mlp.2.weight"), Class::Vision, out, merged),
        TensorSpec::vector(at("mlp.2.bias"), out),
    ]);
    specs
}

fn vision_block(block: &str, cfg: &VisionConfig) -> [TensorSpec; 10] {
    let (hidden, ffn) = (cfg.hidden_size, cfg.intermediate_size);
    let at = |name: &str| format!("{block}.{name}");
    let matrix =
        |name: &str, rows: usize| TensorSpec::matrix(at(name), Class::Vision, rows, hidden);
    let vector = |name: &str, n: usize| TensorSpec::vector(at(name), n);
    let bias = gate_up(&at("mlp"), "bias", ffn, 1);
    [
        vector("norm1.weight", hidden),
        vector("norm2.weight", hidden),
        matrix("attn.qkv.weight", 3 * hidden),
        vector("attn.qkv.bias", 3 * hidden),
        matrix("attn.proj.weight", hidden),
        vector("attn.proj.bias", hidden),
        TensorSpec::interleave(
            at("mlp.gate_up.weight"),
            Class::Vision,
            gate_up(&at("mlp"), "weight", ffn, hidden),
        ),
        TensorSpec::interleave(at("mlp.gate_up.bias"), Class::Vector, bias),
        down(at("mlp.down_proj.weight"), Class::Vision, hidden, ffn),
        vector("mlp.down_proj.bias", hidden),
    ]
}

fn text(cfg: &TextConfig) -> Vec<TensorSpec> {
    let hidden = cfg.hidden_size;
    let table = "model.embed_tokens.weight";
    let mut specs = vec![TensorSpec::matrix(table, Class::Embedding, cfg.vocab_size, hidden)];
    for i in 0..cfg.num_hidden_layers {
        specs.extend(text_layer(&format!("model.layers.{i}"), cfg));
    }
    specs.push(TensorSpec::vector("model.norm.weight", hidden));
    specs
}

fn text_layer(layer: &str, cfg: &TextConfig) -> [TensorSpec; 7] {
    let (hidden, ffn) = (cfg.hidden_size, cfg.intermediate_size);
    let q = cfg.num_attention_heads * cfg.head_dim();
    let kv = cfg.n_kv_heads() * cfg.head_dim();
    let at = |name: &str| format!("{layer}.{name}");
    let qkv = |kind: &str, cols: usize| {
        [("q", q), ("k", kv), ("v", kv)]
            .map(|(name, rows)| source(at(&format!("self_attn.{name}_proj.{kind}")), rows, cols))
            .to_vec()
    };
    [
        TensorSpec::vector(at("input_layernorm.weight"), hidden),
        TensorSpec::stack(at("self_attn.qkv.weight"), Class::Text, qkv("weight", hidden)),
        TensorSpec::stack(at("self_attn.qkv.bias"), Class::Vector, qkv("bias", 1)),
        TensorSpec::matrix(at("self_attn.o_proj.weight"), Class::Text, hidden, q),
        TensorSpec::vector(at("post_attention_layernorm.weight"), hidden),
        TensorSpec::interleave(
            at("mlp.gate_up.weight"),
            Class::Text,
            gate_up(&at("mlp"), "weight", ffn, hidden),
        ),
        down(at("mlp.down_proj.weight"), Class::Text, hidden, ffn),
    ]
}

/// The two factors of SwiGLU, each `[ffn, cols]` with rows of zeros up to a whole block.
fn gate_up(mlp: &str, kind: &str, ffn: usize, cols: usize) -> Vec<SourceRows> {
    let padded_rows = ffn.next_multiple_of(BLOCK);
    ["gate_proj", "up_proj"]
        .map(|name| SourceRows { padded_rows, ..source(format!("{mlp}.{name}.{kind}"), ffn, cols) })
        .to_vec()
}

/// The projection after SwiGLU, with columns for its rows of zeros.
fn down(name: String, class: Class, hidden: usize, ffn: usize) -> TensorSpec {
    TensorSpec::matrix(name, class, hidden, ffn).padded_to(ffn.next_multiple_of(BLOCK))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn config(tied: bool) -> Config {
        let json = json!({
            "model_type": "qwen2_5_vl", "vocab_size": 300, "hidden_size": 64,
            "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "tie_word_embeddings": tied, "image_token_id": 7,
            "rope_scaling": { "type": "mrope", "mrope_section": [2, 3, 3] },
            "vision_config": {
                "depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 42,
                "out_hidden_size": 64
            }
        });
        Config::parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn every_checkpoint_tensor_is_packed_once() {
        for tied in [true, false] {
            let config = config(tied);
            let specs = Qwen2_5Vl::packed_specs(&config);
            let sources = specs.iter().flat_map(|spec| &spec.sources);
            let packed: Vec<_> = sources.map(|s| (s.name.clone(), (s.rows, s.cols))).collect();
            let shapes = Qwen2_5Vl::tensor_shapes(&config).into_iter();
            let size = |shape: Vec<usize>| (shape[0], shape[1..].iter().product());
            let stored: BTreeMap<_, _> = shapes.map(|(name, shape)| (name, size(shape))).collect();
            assert_eq!(packed.len(), stored.len());
            assert_eq!(packed.into_iter().collect::<BTreeMap<_, _>>(), stored);
        }
    }

    #[test]
    fn feed_forward_is_padded_to_whole_blocks() {
        let specs = Qwen2_5Vl::packed_specs(&config(false));
        let shape = |name: &str| specs.iter().find(|spec| spec.name == name).unwrap().shape();
        assert_eq!(shape("model.layers.1.mlp.gate_up.weight"), [256, 64]);
        assert_eq!(shape("model.layers.1.mlp.down_proj.weight"), [64, 128]);
        assert_eq!(shape("model.layers.0.self_attn.qkv.weight"), [64 + 2 * 32, 64]);
        assert_eq!(shape("model.layers.0.self_attn.qkv.bias"), [128]);
        assert_eq!(shape("visual.blocks.2.mlp.gate_up.weight"), [128, 32]);
        assert_eq!(shape("visual.blocks.2.mlp.gate_up.bias"), [128]);
        assert_eq!(shape("visual.blocks.2.mlp.down_proj.weight"), [32, 64]);
        assert_eq!(shape("visual.patch_embed.proj.weight"), [32, 1176]);
        assert_eq!(shape("lm_head.weight"), [300, 64]);
    }
}
