//! `adapter_config.json`: what can be merged, and with which scale.

use serde_json::{Map, Value};

use super::ADAPTER_CONFIG_FILE;
use crate::error::{Error, Result};

/// Settings that make the sum of a weight and a product something else. Each must be absent, null,
/// false or empty.
const UNSUPPORTED: [&str; 14] = [
    "alora_invocation_tokens",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
];

/// Ways to start an adapter that leave the base as it is.
const PLAIN_STARTS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// The scale of every matrix.
#[derive(Debug)]
pub(super) struct AdapterConfig {
    /// What it says that it was trained for.
    pub(super) base_name: Option<String>,
    alpha: f64,
    /// Exceptions by the last parts of a module's name.
    alpha_pattern: Vec<(String, f64)>,
    use_rslora: bool,
}

impl AdapterConfig {
    pub(super) fn parse(json: &[u8]) -> Result<Self> {
        let json: Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| bad("json", error.to_string()))?;
        match json.get("peft_type").and_then(Value::as_str) {
            Some("LORA") => {}
            other => {
                let found = other.unwrap_or("none");
                return Err(bad("peft_type", format!("`{found}`, only LORA is supported")));
            }
        }
        for field in UNSUPPORTED {
            if json.get(field).is_some_and(|value| !is_off(value)) {
                return Err(bad(field, "is not supported; merge the adapter with PEFT".into()));
            }
        }
        if json.get("bias").is_some_and(|bias| bias != "none" && !bias.is_null()) {
            let reason = format!("{}, only \"none\" is supported", json["bias"]);
            return Err(bad("bias", reason));
        }
        let start = json.get("init_lora_weights").and_then(Value::as_str);
        if let Some(start) = start.filter(|start| !PLAIN_STARTS.contains(start)) {
            let reason = format!("`{start}` changes the base as well; merge the adapter with PEFT");
            return Err(bad("init_lora_weights", reason));
        }
        let use_rslora = json.get("use_rslora").is_some_and(|value| !is_off(value));
        let alpha = json.get("lora_alpha").unwrap_or(&Value::Null);
        let alpha = number("lora_alpha", alpha)?;
        let base_name = json.get("base_model_name_or_path").and_then(Value::as_str);
        let base_name = base_name.filter(|name| !name.is_empty()).map(str::to_owned);
        Ok(Self { base_name, alpha, alpha_pattern: alpha_pattern(&json)?, use_rslora })
    }

    /// Factor of the product of a module.
    pub(super) fn scale(&self, module: &str, rank: usize) -> f64 {
        let is_for = |key: &str| {
            let before = module.strip_suffix(key);
            before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let special = self.alpha_pattern.iter().find(|(key, _)| is_for(key));
        let alpha = special.map_or(self.alpha, |(_, alpha)| *alpha);
        let rank = rank as f64;
        alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }
}

/// Keys are regular expressions to PEFT; only those that are plain names are taken.
fn alpha_pattern(json: &Map<String, Value>) -> Result<Vec<(String, f64)>> {
    let field = "alpha_pattern";
    let patterns = match json.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(patterns)) => patterns,
        Some(other) => return Err(bad(field, format!("{other}, expected an object"))),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let one = |(key, value): (&String, &Value)| match key.chars().all(is_plain) {
        true => Ok((key.clone(), number(&format!("{field}: `{key}`"), value)?)),
        false => Err(bad(field, format!("`{key}` is no plain name; merge the adapter with PEFT"))),
    };
    patterns.iter().map(one).collect()
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn number(field: &str, value: &Value) -> Result<f64> {
    let number = value.as_f64().filter(|x| x.is_finite());
    number.ok_or_else(|| bad(field, format!("{value}, expected a number")))
}

fn bad(field: &str, reason: String) -> Error {
    Error::AdapterConfig { file: ADAPTER_CONFIG_FILE.into(), field: field.into(), reason }
}
