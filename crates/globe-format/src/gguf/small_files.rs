//! The small files of a model folder, made from the metadata of GGUF files.

use serde_json::{Map, Value, json};

use super::{Gguf, GgufModel, GgufValue};
use crate::{error::Result, source::Source, tensors::SourceTensors};

/// What llama.cpp fixes in code for this architecture and does not store.
const TEMPORAL_PATCH_SIZE: u64 = 2;
const WINDOW_SIZE: u64 = 112;
const SPATIAL_MERGE_SIZE: u64 = 2;

/// Limits that the published checkpoints have, pixels; files rarely store them.
const MIN_PIXELS: u64 = 56 * 56;
const MAX_PIXELS: u64 = 12_845_056;

/// How Qwen2 cuts text before it is merged: `tokenizer.json` of the published checkpoints.
const PRE_TOKENIZER: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Values of `tokenizer.ggml.token_type`.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;

/// All small files, by name.
pub(super) fn all<S: Source>(model: &GgufModel<S>) -> Result<Vec<(String, Vec<u8>)>> {
    let tokens = Tokens::read(&model.text)?;
    let template = model.text.text("tokenizer.chat_template")?;
    let bytes = |json: Value| format!("{:#}\n", sorted(json)).into_bytes();
    Ok(vec![
        ("chat_template.jinja".into(), template.as_bytes().to_vec()),
        ("config.json".into(), bytes(config(model, &tokens)?)),
        ("generation_config.json".into(), bytes(generation_config(&model.text, &tokens)?)),
        ("preprocessor_config.json".into(), bytes(preprocessor_config(&model.vision)?)),
        (
            "tokenizer.json".into(),
            sorted(tokenizer(&model.text, &tokens)?).to_string().into_bytes(),
        ),
    ])
}

/// The same with sorted keys: whether a JSON map sorts depends on crate features.
fn sorted(json: Value) -> Value {
    match json {
        Value::Array(list) => list.into_iter().map(sorted).collect(),
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.into_iter().collect();
            pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
            pairs.into_iter().map(|(key, value)| (key, sorted(value))).collect()
        }
        other => other,
    }
}

/// The vocabulary.
struct Tokens<'a> {
    texts: Vec<&'a str>,
    kinds: Vec<u64>,
}

impl<'a> Tokens<'a> {
    fn read<S: Source>(text: &'a Gguf<S>) -> Result<Self> {
        let (list, kinds_key) = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type");
        let texts = text.texts(list)?;
        let kinds = text.array(kinds_key)?.iter().map(|kind| match kind {
            GgufValue::Unsigned(kind) => Ok(*kind),
            other => Err(text.fail(kinds_key, format!("{other:?}, expected whole numbers"))),
        });
        let kinds: Vec<u64> = kinds.collect::<Result<_>>()?;
        if kinds.len() != texts.len() {
            let reason = format!("{} for {} tokens", kinds.len(), texts.len());
            return Err(text.fail(kinds_key, reason));
        }
        Ok(Self { texts, kinds })
    }

    fn id(&self, token: &str) -> Option<usize> {
        self.texts.iter().position(|text| *text == token)
    }
}

/// `config.json` in the flat layout of the published checkpoints.
fn config<S: Source>(model: &GgufModel<S>, tokens: &Tokens<'_>) -> Result<Value> {
    let text = &model.text;
    let at = |name: &str| format!("qwen2vl.{name}");
    let size = |name: &str| text.size(&at(name));
    let shape = model.shape("model.embed_tokens.weight");
    let vocab_size = shape.and_then(|shape| shape.first().copied()).unwrap_or(tokens.texts.len());
    let sections = sections(text, &at("rope.dimension_sections"))?;
    let image_token = "<|image_pad|>";
    let image_token_id = tokens.id(image_token);
    let image_token_id = image_token_id
        .ok_or_else(|| text.fail("tokenizer.ggml.tokens", format!("no `{image_token}`")))?;
    let mut config = json!({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "hidden_act": "silu",
        "hidden_size": size("embedding_length")?,
        "intermediate_size": size("feed_forward_length")?,
        "num_hidden_layers": size("block_count")?,
        "num_attention_heads": size("attention.head_count")?,
        "num_key_value_heads": size("attention.head_count_kv")?,
        "max_position_embeddings": size("context_length")?,
        "rms_norm_eps": text.float_or(&at("attention.layer_norm_rms_epsilon"), 1e-6)?,
        "rope_theta": text.float_or(&at("rope.freq_base"), 1e6)?,
        "rope_scaling": { "type": "mrope", "mrope_section": sections },
        "vocab_size": vocab_size,
        "tie_word_embeddings": model.shape("lm_head.weight").is_none(),
        "image_token_id": image_token_id,
        "vision_config": vision_config(&model.vision)?,
    });
    if let Some(head_dim) = text.size_of(&at("attention.key_length"))? {
        config["head_dim"] = head_dim.into();
    }
    for (field, key) in [
        ("bos_token_id", "tokenizer.ggml.bos_token_id"),
        ("eos_token_id", "tokenizer.ggml.eos_token_id"),
        ("pad_token_id", "tokenizer.ggml.padding_token_id"),
    ] {
        if let Some(id) = text.size_of(key)? {
            config[field] = id.into();
        }
    }
    Ok(config)
}

/// The first three of the four numbers that llama.cpp stores; the last is 0.
fn sections<S: Source>(text: &Gguf<S>, key: &str) -> Result<Vec<u64>> {
    let values = text.array(key)?.iter().take(3).map(|value| match value {
        GgufValue::Unsigned(n) => Ok(*n),
        other => Err(text.fail(key, format!("{other:?}, expected whole numbers"))),
    });
    values.collect()
}

fn vision_config<S: Source>(vision: &Gguf<S>) -> Result<Value> {
    let at = |name: &str| format!("clip.vision.{name}");
    let size = |name: &str| vision.size(&at(name));
    let depth = size("block_count")?;
    Ok(json!({
        "model_type": "qwen2_5_vl",
        "depth": depth,
        "hidden_act": "silu",
        "hidden_size": size("embedding_length")?,
        "intermediate_size": size("feed_forward_length")?,
        "num_heads": size("attention.head_count")?,
        "in_channels": 3,
        "out_hidden_size": size("projection_dim")?,
        "patch_size": size("patch_size")?,
        "spatial_merge_size": merge_size(vision)?,
        "temporal_patch_size": TEMPORAL_PATCH_SIZE,
        "window_size": vision.size_of(&at("window_size"))?.unwrap_or(WINDOW_SIZE),
        "fullatt_block_indexes": full_attention(vision, depth)?,
    }))
}

fn merge_size<S: Source>(vision: &Gguf<S>) -> Result<u64> {
    Ok(vision.size_of("clip.vision.spatial_merge_size")?.unwrap_or(SPATIAL_MERGE_SIZE))
}

/// Blocks that attend over the whole image: the last one of every `n_wa_pattern`.
fn full_attention<S: Source>(vision: &Gguf<S>, depth: u64) -> Result<Vec<u64>> {
    let key = "clip.vision.n_wa_pattern";
    match vision.size(key)? {
        0 => Ok((0..depth).collect()),
        pattern if depth <= 1 << 16 => Ok((0..depth).filter(|i| (i + 1) % pattern == 0).collect()),
        _ => Err(vision.fail("clip.vision.block_count", format!("{depth}"))),
    }
}

fn generation_config<S: Source>(text: &Gguf<S>, tokens: &Tokens<'_>) -> Result<Value> {
    let eos = text.size_of("tokenizer.ggml.eos_token_id")?;
    let mut ends: Vec<u64> = eos.into_iter().collect();
    for end in ["<|im_end|>", "<|endoftext|>"] {
        ends.extend(tokens.id(end).map(|id| id as u64).filter(|id| Some(*id) != eos));
    }
    let mut config = json!({ "eos_token_id": ends });
    if let Some(pad) = text.size_of("tokenizer.ggml.padding_token_id")? {
        config["pad_token_id"] = pad.into();
    }
    Ok(config)
}

fn preprocessor_config<S: Source>(vision: &Gguf<S>) -> Result<Value> {
    let floats = |key: &str| -> Result<Vec<f64>> {
        let float = |value: &GgufValue| match value {
            GgufValue::Float(x) => Ok(*x),
            other => Err(vision.fail(key, format!("{other:?}, expected numbers"))),
        };
        vision.array(key)?.iter().map(float).collect()
    };
    let limit =
        |key: &str, default: u64| -> Result<u64> { Ok(vision.size_of(key)?.unwrap_or(default)) };
    Ok(json!({
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": vision.size("clip.vision.patch_size")?,
        "temporal_patch_size": TEMPORAL_PATCH_SIZE,
        "merge_size": merge_size(vision)?,
        "min_pixels": limit("clip.vision.image_min_pixels", MIN_PIXELS)?,
        "max_pixels": limit("clip.vision.image_max_pixels", MAX_PIXELS)?,
        "image_mean": floats("clip.vision.image_mean")?,
        "image_std": floats("clip.vision.image_std")?,
    }))
}

/// `tokenizer.json`: byte-level pairs, cut as Qwen2 does.
fn tokenizer<S: Source>(text: &Gguf<S>, tokens: &Tokens<'_>) -> Result<Value> {
    for (key, expected) in [("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "qwen2")] {
        let found = text.text(key)?;
        if found != expected {
            let reason = format!("`{found}`, only `{expected}` is supported");
            return Err(text.fail(key, reason));
        }
    }
    let (mut vocab, mut added) = (Map::new(), Vec::new());
    for (id, (token, kind)) in tokens.texts.iter().zip(&tokens.kinds).enumerate() {
        match *kind {
            // Rows of the embedding that no token uses.
            UNUSED => {}
            CONTROL | USER_DEFINED => added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": *kind == CONTROL,
            })),
            _ => {
                if vocab.insert((*token).into(), id.into()).is_some() {
                    let reason = format!("`{token}` stands twice");
                    return Err(text.fail("tokenizer.ggml.tokens", reason));
                }
            }
        }
    }
    let key = "tokenizer.ggml.merges";
    let merges = text.texts(key)?.into_iter().map(|merge| match merge.split_once(' ') {
        Some((left, right)) => Ok(json!([left, right])),
        None => Err(text.fail(key, format!("`{merge}` is no pair"))),
    });
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": { "type": "NFC" },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": PRE_TOKENIZER }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
        ] },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": merges.collect::<Result<Vec<_>>>()?,
        },
    }))
}
