//! A run as files of a checkpoint, and back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::buffer::Buffer;
use crate::{
    Error, PolicyState, Result, Tensors,
    checkpoint::{ADAPTER_CONFIG, ADAPTER_MODEL, Adapter, Loaded},
    config::{Config, Difference},
    data::Cursor,
    optimiser::Guard,
};

const STATE: &str = "state.json";
const BUFFER: &str = "rollouts.json";
const CONFIG: &str = "config.toml";
const PARAMETERS: &str = "parameters.safetensors";
const OPTIMISER: &str = "optimiser.safetensors";
const ADAPTER: &str = "adapter";

/// Where a run stands, apart from weights and answers. Random numbers need no state: they are
/// functions of seed and step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Optimiser steps done.
    pub step: u64,
    /// Where the data stand.
    pub cursor: Cursor,
    /// Steps left out.
    pub guard: Guard,
    /// The policy's identity.
    pub identity: String,
    /// Commit of the program, as told by the caller.
    pub commit: Option<String>,
    /// Best evaluation so far and evaluations since, for training with known answers.
    pub best: Option<(f64, u64)>,
}

/// What a checkpoint holds.
pub(super) struct Saved {
    pub state: RunState,
    pub config: Config,
    pub buffer: Option<Buffer>,
    pub policy: PolicyState,
}

/// The files of a checkpoint.
pub(super) fn to_files(
    state: &RunState,
    config: &Config,
    buffer: Option<&Buffer>,
    policy: &PolicyState,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let json = |name: &str, value: serde_json::Result<Vec<u8>>| {
        value.map_err(|e| Error::io("cannot encode", name)(e.into()))
    };
    let mut files = BTreeMap::new();
    files.insert(STATE.to_owned(), json(STATE, serde_json::to_vec_pretty(state))?);
    files.insert(CONFIG.to_owned(), config.documented().into_bytes());
    files.insert(OPTIMISER.to_owned(), policy.optimiser.to_bytes(&BTreeMap::new())?);
    if let Some(config) = &policy.adapter {
        let adapter = Adapter::from_tensors(config.clone(), &policy.parameters)
            .map_err(|reason| Error::PolicyContract { call: "save", reason })?;
        for (name, bytes) in adapter.to_files()? {
            files.insert(format!("{ADAPTER}/{name}"), bytes);
        }
    } else {
        files.insert(PARAMETERS.to_owned(), policy.parameters.to_bytes(&BTreeMap::new())?);
    }
    if let Some(buffer) = buffer {
        files.insert(BUFFER.to_owned(), json(BUFFER, serde_json::to_vec(buffer))?);
        for (i, asked) in buffer.prompts.iter().enumerate() {
            files.insert(photo(i), asked.image.clone());
        }
    }
    Ok(files)
}

fn photo(i: usize) -> String {
    format!("photos/{i:04}")
}

/// Reads what [`to_files`] wrote.
pub(super) fn from_files(loaded: &Loaded) -> Result<Saved> {
    let bad = |file: &str, reason: String| Error::CheckpointCorrupt {
        path: loaded.path.clone(),
        reason: format!("{file}: {reason}"),
        previous: None,
    };
    let state =
        serde_json::from_slice(loaded.file(STATE)?).map_err(|e| bad(STATE, e.to_string()))?;
    let text = std::str::from_utf8(loaded.file(CONFIG)?).map_err(|e| bad(CONFIG, e.to_string()))?;
    let config = Config::parse(text, &loaded.path.join(CONFIG).display().to_string())?;
    let optimiser = Tensors::from_bytes(loaded.file(OPTIMISER)?.to_vec())?;
    let policy = if loaded.files.contains_key(PARAMETERS) {
        let parameters = Tensors::from_bytes(loaded.file(PARAMETERS)?.to_vec())?;
        PolicyState { parameters, optimiser, adapter: None }
    } else {
        let file = |name: &str| loaded.file(&format!("{ADAPTER}/{name}"));
        let adapter = Adapter::from_files(file(ADAPTER_CONFIG)?, file(ADAPTER_MODEL)?.to_vec())
            .map_err(|reason| bad(ADAPTER, reason))?;
        PolicyState { parameters: adapter.tensors(), optimiser, adapter: Some(adapter.config) }
    };
    let mut buffer: Option<Buffer> = match loaded.files.get(BUFFER) {
        Some(bytes) => Some(serde_json::from_slice(bytes).map_err(|e| bad(BUFFER, e.to_string()))?),
        None => None,
    };
    for (i, asked) in buffer.iter_mut().flat_map(|b| b.prompts.iter_mut()).enumerate() {
        asked.image = loaded.file(&photo(i))?.to_vec();
    }
    Ok(Saved { state, config, buffer, policy })
}

/// What changed in the configuration since a checkpoint was saved, to be shown before resuming.
///
/// # Errors
/// If the checkpoint's configuration cannot be read.
pub fn resume_differences(loaded: &Loaded, config: &Config) -> Result<Vec<Difference>> {
    let text = String::from_utf8_lossy(loaded.file(CONFIG)?).into_owned();
    let saved = Config::parse(&text, &loaded.path.join(CONFIG).display().to_string())?;
    Ok(saved.differences(config))
}
