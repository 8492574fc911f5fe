//! `config.json` of Qwen2.5-VL, in the flat layout of transformers 4.4x and the nested one since.

use globe_format::{Files, read_file};
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result};

/// Where a configuration names none.
const DEFAULT_IMAGE_TOKEN_ID: u32 = 151_655;

/// Sizes of the whole model.
#[derive(Clone, Debug)]
pub struct Config {
    /// The language model.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// Id of the placeholder that one merged image patch replaces.
    pub image_token_id: u32,
    /// Whether the head is the transposed embedding table.
    pub tie_word_embeddings: bool,
    /// Ids that end an answer, as far as this file names them.
    pub eos_token_ids: Vec<u32>,
}

/// Sizes of the language model. A field that is absent has the default of transformers, which
/// leaves such fields out when it saves.
#[derive(Clone, Debug, Deserialize)]
pub struct TextConfig {
    /// Rows of the embedding table.
    #[serde(default = "size::<152064>")]
    pub vocab_size: usize,
    /// Width of the residual stream.
    #[serde(default = "size::<8192>")]
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    #[serde(default = "size::<29568>")]
    pub intermediate_size: usize,
    /// Number of layers.
    #[serde(default = "size::<80>")]
    pub num_hidden_layers: usize,
    /// Number of query heads.
    #[serde(default = "size::<64>")]
    pub num_attention_heads: usize,
    /// Number of key and value heads; null means one per query head.
    #[serde(default = "some_size::<8>")]
    pub num_key_value_heads: Option<usize>,
    /// Width of one head; absent means `hidden_size / num_attention_heads`.
    #[serde(default)]
    pub head_dim: Option<usize>,
    /// Added to the mean square in every norm.
    #[serde(default = "default_text_eps")]
    pub rms_norm_eps: f32,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_parameters: Option<RopeParameters>,
    #[serde(default)]
    rope_scaling: Option<RopeParameters>,
    /// Longest context the model was trained for, tokens.
    #[serde(default = "size::<32768>")]
    pub max_position_embeddings: usize,
    #[serde(default)]
    use_sliding_window: Option<bool>,
    #[serde(default)]
    sliding_window: Option<usize>,
    #[serde(default)]
    max_window_layers: Option<usize>,
    #[serde(default)]
    layer_types: Option<Vec<String>>,
}

/// Called `rope_scaling` before transformers 5. Files written in between give the kind twice.
#[derive(Clone, Debug, Default, Deserialize)]
struct RopeParameters {
    #[serde(default)]
    rope_type: Option<String>,
    #[serde(default, rename = "type")]
    old_type: Option<String>,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    mrope_section: Option<Vec<usize>>,
}

/// Sizes of the vision tower. Absent fields have the defaults of transformers.
#[derive(Clone, Debug, Deserialize)]
pub struct VisionConfig {
    /// Number of blocks.
    #[serde(default = "size::<32>")]
    pub depth: usize,
    /// Width of the residual stream.
    #[serde(default = "size::<3584>")]
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    #[serde(default = "size::<3420>")]
    pub intermediate_size: usize,
    /// Number of heads.
    #[serde(default = "size::<16>")]
    pub num_heads: usize,
    /// Colour channels. Published files also have `in_chans`, which the reference does not read.
    #[serde(default = "size::<3>")]
    pub in_channels: usize,
    /// Side of a patch, pixels.
    #[serde(default = "size::<14>")]
    pub patch_size: usize,
    /// Frames per patch; a photo is repeated.
    #[serde(default = "size::<2>")]
    pub temporal_patch_size: usize,
    /// Patches merged along each side into one token.
    #[serde(default = "size::<2>")]
    pub spatial_merge_size: usize,
    /// Side of an attention window, pixels.
    #[serde(default = "size::<112>")]
    pub window_size: usize,
    /// Blocks that attend over the whole image.
    #[serde(default = "default_full_attention")]
    pub fullatt_block_indexes: Vec<usize>,
    /// Width that the merger returns: that of the language model.
    #[serde(default = "size::<3584>")]
    pub out_hidden_size: usize,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default)]
    rope_parameters: Option<RopeParameters>,
}

fn default_text_eps() -> f32 {
    1e-5
}
fn size<const N: usize>() -> usize {
    N
}
fn some_size<const N: usize>() -> Option<usize> {
    Some(N)
}
fn default_full_attention() -> Vec<usize> {
    vec![7, 15, 23, 31]
}
fn silu() -> String {
    "silu".into()
}

fn bad(field: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Config { field: field.into(), reason: reason.into() }
}

impl Config {
    /// Reads and checks `config.json` of a model folder.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the folder is no model, else as [`Config::parse`].
    pub async fn load<F: Files>(files: &F) -> Result<Self> {
        let bytes = read_file(files, "config.json").await?;
        Self::parse(&bytes.ok_or(Error::MissingFile { file: "config.json" })?)
    }

    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, [`Error::UnknownArchitecture`] for another model.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let json: Value =
            serde_json::from_slice(bytes).map_err(|e| bad("file", format!("not JSON: {e}")))?;
        let found = json["model_type"].as_str().unwrap_or("none");
        if found != crate::Qwen2_5Vl::ARCHITECTURE {
            return Err(Error::UnknownArchitecture { found: found.into() });
        }
        let nested = json.get("text_config").filter(|t| t.is_object());
        let text_json = nested.unwrap_or(&json);
        let vision_json =
            json.get("vision_config").ok_or_else(|| bad("vision_config", "absent"))?;
        let config = Self {
            text: section("text_config", text_json)?,
            vision: section("vision_config", vision_json)?,
            image_token_id: image_token_id(&json)?,
            tie_word_embeddings: [&json, text_json]
                .iter()
                .any(|j| j["tie_word_embeddings"].as_bool() == Some(true)),
            eos_token_ids: ids(&json["eos_token_id"])
                .or_else(|| ids(&text_json["eos_token_id"]))
                .unwrap_or_default(),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        self.text.check()?;
        self.vision.check()?;
        let (out, hidden) = (self.vision.out_hidden_size, self.text.hidden_size);
        if out != hidden {
            let reason = format!("{out}, but the language model is {hidden} wide");
            return Err(bad("vision_config.out_hidden_size", reason));
        }
        if self.image_token_id as usize >= self.text.vocab_size {
            let reason = format!("{} is outside the vocabulary", self.image_token_id);
            return Err(bad("image_token_id", reason));
        }
        Ok(())
    }
}

fn section<T: for<'a> Deserialize<'a>>(name: &str, json: &Value) -> Result<T> {
    T::deserialize(json).map_err(|e| bad(name, e.to_string()))
}

fn image_token_id(json: &Value) -> Result<u32> {
    let field = "image_token_id";
    let value = match json.get(field) {
        None | Some(Value::Null) => return Ok(DEFAULT_IMAGE_TOKEN_ID),
        Some(value) => value.as_u64().and_then(|id| u32::try_from(id).ok()),
    };
    value.ok_or_else(|| bad(field, "not a token id"))
}

fn ids(value: &Value) -> Option<Vec<u32>> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        other => one(other).map(|id| vec![id]),
    }
}

/// Errors unless every size is positive.
fn positive(section: &str, sizes: &[(&str, usize)]) -> Result<()> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, _)) => Err(bad(format!("{section}.{name}"), "must be at least 1")),
        None => Ok(()),
    }
}

fn check_activation(section: &str, name: &str) -> Result<()> {
    if name == "silu" {
        return Ok(());
    }
    Err(bad(format!("{section}.hidden_act"), format!("`{name}`, only silu is supported")))
}

/// Errors unless `part` divides `whole` and the head fits the attention kernel.
fn check_heads(section: &str, whole: usize, heads: usize, head_dim: usize) -> Result<()> {
    if head_dim * heads != whole {
        let reason = format!("{heads} heads do not divide hidden_size {whole}");
        return Err(bad(format!("{section}.num_heads"), reason));
    }
    if head_dim > globe_ops::MAX_HEAD_DIM || !head_dim.is_multiple_of(2) {
        let reason =
            format!("{head_dim}, supported are even sizes up to {}", globe_ops::MAX_HEAD_DIM);
        return Err(bad(format!("{section}.head_dim"), reason));
    }
    Ok(())
}

impl TextConfig {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Number of key and value heads.
    pub fn n_kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Base of the rotary frequencies.
    pub fn rope_theta(&self) -> f64 {
        let nested = self.rope().and_then(|r| r.rope_theta);
        nested.or(self.rope_theta).unwrap_or(1_000_000.0)
    }

    fn rope(&self) -> Option<&RopeParameters> {
        self.rope_parameters.as_ref().or(self.rope_scaling.as_ref())
    }

    /// Rotary frequencies per axis: time, height, width.
    pub fn mrope_section(&self) -> Vec<usize> {
        let given = self.rope().and_then(|r| r.mrope_section.clone());
        given.unwrap_or_else(|| vec![16, 24, 24])
    }

    /// Keys that layer `i` can look back on, if it is limited.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        let window = self.sliding_window.filter(|_| self.use_sliding_window == Some(true))?;
        let sliding = match &self.layer_types {
            Some(types) => types.get(layer).is_some_and(|t| t == "sliding_attention"),
            None => layer >= self.max_window_layers.unwrap_or(usize::MAX),
        };
        sliding.then_some(window)
    }

    fn check(&self) -> Result<()> {
        positive(
            "text_config",
            &[
                ("vocab_size", self.vocab_size),
                ("hidden_size", self.hidden_size),
                ("intermediate_size", self.intermediate_size),
                ("num_hidden_layers", self.num_hidden_layers),
                ("num_attention_heads", self.num_attention_heads),
                ("num_key_value_heads", self.n_kv_heads()),
                ("max_position_embeddings", self.max_position_embeddings),
            ],
        )?;
        check_activation("text_config", &self.hidden_act)?;
        let head_dim = self.head_dim();
        let whole = self.head_dim.map_or(self.hidden_size, |d| d * self.num_attention_heads);
        check_heads("text_config", whole, self.num_attention_heads, head_dim)?;
        if !self.num_attention_heads.is_multiple_of(self.n_kv_heads()) {
            let reason = format!("does not divide {} query heads", self.num_attention_heads);
            return Err(bad("text_config.num_key_value_heads", reason));
        }
        let sections = self.mrope_section();
        if sections.len() != 3 || sections.iter().sum::<usize>() != head_dim / 2 {
            let reason = format!("{sections:?} must be three sizes that sum to {}", head_dim / 2);
            return Err(bad("text_config.rope_parameters.mrope_section", reason));
        }
        check_rope("text_config", self.rope(), &["default", "mrope"])?;
        check_theta("text_config", self.rope_theta())
    }
}

fn check_rope(section: &str, rope: Option<&RopeParameters>, known: &[&str]) -> Result<()> {
    match rope.and_then(|r| r.rope_type.as_deref().or(r.old_type.as_deref())) {
        Some(kind) if !known.contains(&kind) => {
            let reason = format!("`{kind}` is not supported; supported: {}", known.join(", "));
            Err(bad(format!("{section}.rope_parameters.rope_type"), reason))
        }
        _ => Ok(()),
    }
}

fn check_theta(section: &str, theta: f64) -> Result<()> {
    if theta.is_finite() && theta > 0.0 {
        return Ok(());
    }
    Err(bad(format!("{section}.rope_theta"), format!("{theta} is not a positive number")))
}

impl VisionConfig {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads.max(1)
    }

    /// Base of the rotary frequencies.
    pub fn rope_theta(&self) -> f64 {
        self.rope_parameters.as_ref().and_then(|r| r.rope_theta).unwrap_or(10_000.0)
    }

    /// Values in one flattened patch.
    pub fn patch_values(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Patches merged into one token.
    pub fn merge_area(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }

    /// Side of an attention window in merged tokens.
    pub fn window_tokens(&self) -> usize {
        self.window_size / self.spatial_merge_size / self.patch_size
    }

    fn check(&self) -> Result<()> {
        positive(
            "vision_config",
            &[
                ("depth", self.depth),
                ("hidden_size", self.hidden_size),
                ("intermediate_size", self.intermediate_size),
                ("num_heads", self.num_heads),
                ("in_channels", self.in_channels),
                ("patch_size", self.patch_size),
                ("temporal_patch_size", self.temporal_patch_size),
                ("spatial_merge_size", self.spatial_merge_size),
            ],
        )?;
        check_activation("vision_config", &self.hidden_act)?;
        check_heads("vision_config", self.hidden_size, self.num_heads, self.head_dim())?;
        if !self.head_dim().is_multiple_of(4) {
            let reason = format!("{} does not split over two axes", self.head_dim());
            return Err(bad("vision_config.head_dim", reason));
        }
        if self.window_tokens() == 0 {
            let reason = format!("{} pixels hold no merged patch", self.window_size);
            return Err(bad("vision_config.window_size", reason));
        }
        check_rope("vision_config", self.rope_parameters.as_ref(), &["default", "axial"])?;
        check_theta("vision_config", self.rope_theta())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The layout of Qwen2.5-VL-7B-Instruct as published.
    fn published() -> Value {
        json!({
            "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl",
            "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645,
            "vision_start_token_id": 151652, "vision_end_token_id": 151653,
            "vision_token_id": 151654, "image_token_id": 151655, "video_token_id": 151656,
            "hidden_act": "silu", "hidden_size": 3584, "initializer_range": 0.02,
            "intermediate_size": 18944, "max_position_embeddings": 128000,
            "max_window_layers": 28, "num_attention_heads": 28, "num_hidden_layers": 28,
            "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
            "sliding_window": 32768, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
            "use_cache": true, "use_sliding_window": false,
            "vision_config": {
                "depth": 32, "hidden_act": "silu", "hidden_size": 1280,
                "intermediate_size": 3420, "num_heads": 16, "in_chans": 3,
                "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2,
                "spatial_patch_size": 14, "window_size": 112,
                "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2,
                "temporal_patch_size": 2
            },
            "rope_scaling": { "type": "mrope", "mrope_section": [16, 24, 24] },
            "vocab_size": 152064
        })
    }

    fn parse(json: &Value) -> Result<Config> {
        Config::parse(json.to_string().as_bytes())
    }

    fn check_7b(config: &Config) {
        let (text, vision) = (&config.text, &config.vision);
        assert_eq!(
            (text.head_dim(), text.n_kv_heads(), text.mrope_section()),
            (128, 4, vec![16, 24, 24])
        );
        assert_eq!((text.rope_theta(), text.rms_norm_eps, text.window_of(27)), (1e6, 1e-6, None));
        assert_eq!((vision.head_dim(), vision.window_tokens(), vision.rope_theta()), (80, 4, 1e4));
        assert_eq!((vision.patch_values(), config.eos_token_ids.as_slice()), (1176, &[151645][..]));
    }

    #[test]
    fn reads_the_published_layout() {
        check_7b(&parse(&published()).unwrap());
    }

    #[test]
    fn reads_what_fine_tuning_with_4_49_writes() {
        let mut json = published();
        json["rope_scaling"] = json!({
            "mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"
        });
        json["vision_config"]["in_channels"] = json!(3);
        json["vision_config"]["model_type"] = json!("qwen2_5_vl");
        json["sliding_window"] = Value::Null;
        json["use_sliding_window"] = Value::Null;
        check_7b(&parse(&json).unwrap());
    }

    #[test]
    fn reads_the_nested_layout_with_both_copies_of_the_text_fields() {
        let mut json = published();
        let mut text = json.clone();
        text["model_type"] = json!("qwen2_5_vl_text");
        text["rope_parameters"] = json!({
            "rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]
        });
        text["layer_types"] = json!(vec!["full_attention"; 28]);
        json["text_config"] = text;
        json["vision_config"]["rope_parameters"] =
            json!({ "rope_type": "axial", "rope_theta": 1e4 });
        check_7b(&parse(&json).unwrap());
    }

    #[test]
    fn fields_that_saving_left_out_have_their_defaults() {
        let mut json = published();
        for field in ["depth", "num_heads", "intermediate_size", "out_hidden_size", "patch_size"] {
            json["vision_config"].as_object_mut().unwrap().remove(field);
        }
        json.as_object_mut().unwrap().remove("image_token_id");
        check_7b(&parse(&json).unwrap());
        let bare = json!({ "model_type": "qwen2_5_vl", "vision_config": { "out_hidden_size": 8192, "hidden_size": 1280 } });
        let config = parse(&bare).unwrap();
        assert_eq!((config.text.num_hidden_layers, config.text.n_kv_heads()), (80, 8));
        assert_eq!((config.vision.depth, config.image_token_id), (32, 151_655));
    }

    #[test]
    fn layers_past_the_limit_slide_when_asked_to() {
        let mut json = published();
        json["use_sliding_window"] = json!(true);
        json["max_window_layers"] = json!(20);
        let text = parse(&json).unwrap().text;
        assert_eq!((text.window_of(19), text.window_of(20)), (None, Some(32768)));
    }
}
