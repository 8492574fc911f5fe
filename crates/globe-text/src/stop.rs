//! Which tokens end an answer: `generation_config.json`, else `config.json`.

use globe_format::Files;
use serde_json::{Map, Value};

use crate::{
    error::Result,
    json::{bad, read_object},
    tokenizer::{IM_END, Tokenizer},
};

const GENERATION_FILE: &str = "generation_config.json";
const CONFIG_FILE: &str = "config.json";

/// Ids that end an answer and the id that pads one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopTokens {
    /// Any of these ends the answer; sorted. Empty if the folder names none: answers then end at
    /// their longest length.
    pub eos: Vec<u32>,
    /// Fills up shorter answers of a batch.
    pub pad: Option<u32>,
}

impl StopTokens {
    /// Reads the model folder. Where `generation_config.json` names no end, the one of
    /// `config.json` and `<|im_end|>` are used. Ids that are no token are passed over: small
    /// models often carry the defaults of large ones, and such an id can never be sampled.
    pub async fn load<F: Files>(files: &F, tokenizer: &Tokenizer) -> Result<Self> {
        let generation = read_object(files, GENERATION_FILE).await?.unwrap_or_default();
        let config = read_object(files, CONFIG_FILE).await?.unwrap_or_default();
        let known = |ids: Vec<u32>| -> Vec<u32> {
            ids.into_iter().filter(|id| tokenizer.token(*id).is_some()).collect()
        };
        let mut eos = known(ids(GENERATION_FILE, &generation, "eos_token_id")?);
        if eos.is_empty() {
            eos = known(config_ids(&config, "eos_token_id")?);
            eos.extend(tokenizer.id(IM_END).ok());
        }
        let pad = known(ids(GENERATION_FILE, &generation, "pad_token_id")?).into_iter().next();
        let pad = pad.or(known(config_ids(&config, "pad_token_id")?).into_iter().next());
        eos.sort_unstable();
        eos.dedup();
        Ok(Self { eos, pad })
    }

    /// True when `id` ends the answer.
    pub fn contains(&self, id: u32) -> bool {
        self.eos.contains(&id)
    }
}

/// Newer exports keep the fields of the language model in `text_config`.
fn config_ids(config: &Map<String, Value>, field: &str) -> Result<Vec<u32>> {
    let nested = config.get("text_config").and_then(Value::as_object);
    let found = ids(CONFIG_FILE, config, field)?;
    match nested {
        Some(nested) if found.is_empty() => ids(CONFIG_FILE, nested, field),
        _ => Ok(found),
    }
}

/// `field` as one id, a list of ids, or nothing.
fn ids(file: &str, object: &Map<String, Value>, field: &str) -> Result<Vec<u32>> {
    let values = match object.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(values)) => values.as_slice(),
        Some(value) => std::slice::from_ref(value),
    };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids: Option<Vec<u32>> = values.iter().map(id).collect();
    ids.ok_or_else(|| bad(file, format!("{field} is not an id or a list of ids")))
}
