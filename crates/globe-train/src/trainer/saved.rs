//! A run as files of a checkpoint, and back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::vec::IntoIter;

use globe_format::{Checkpoint, Mapped, f32_safetensors_header};
use serde::{Deserialize, Serialize};

use super::buffer::Buffer;
use crate::{
    Error, NamedShape, Policy, PolicyError, PolicyState, Result, StateLayout, StateSink,
    StateSource,
    checkpoint::{
        ADAPTER_CONFIG, ADAPTER_MODEL, AdapterConfig, Loaded, RealDisk, Store, Writer,
        peft_metadata,
    },
    config::{Config, Difference, Weights},
    data::Cursor,
    optimiser::Guard,
    state::{check_size, missing, too_many},
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
    /// Version and commit of the program, as told by the caller.
    pub commit: Option<String>,
    /// Best evaluation so far and evaluations since, for training with known answers.
    pub best: Option<(f64, u64)>,
}

impl RunState {
    /// Where `saved` stood, gone on with by this program.
    pub(super) fn going_on_from(&self, saved: Self) -> Self {
        Self { commit: self.commit.clone().or(saved.commit), ..saved }
    }
}

/// Where a run stood after some earlier step, in host memory: what is saved when the device is lost.
pub(super) struct HostCopy {
    state: RunState,
    buffer: Option<Buffer>,
    policy: PolicyState,
}

impl HostCopy {
    /// A copy, if one of this step is wanted.
    pub fn when_due(
        config: &Config,
        state: &RunState,
        buffer: Option<&Buffer>,
        policy: &mut dyn Policy,
    ) -> Result<Option<Self>> {
        let every = config.checkpoint.host_copy_every;
        if every == 0 || !state.step.is_multiple_of(every) || config.model.weights == Weights::Full
        {
            return Ok(None);
        }
        Ok(Some(Self { state: state.clone(), buffer: buffer.cloned(), policy: policy.save()? }))
    }

    /// Saves it as a checkpoint.
    pub fn save(&self, config: &Config, store: &Store) -> Result<PathBuf> {
        let Self { state, buffer, policy } = self;
        store.save(&mut RealDisk, state.step, |to| {
            write(to, state, config, buffer.as_ref(), |sink| policy.save_to(sink))
        })
    }
}

/// After a failure: what of a run is saved, around the cause. `copy` is the last one on the host, and
/// `save` saves from the device.
pub(super) fn save_after(
    cause: Error,
    copy: Option<&HostCopy>,
    config: &Config,
    store: &Store,
    save: impl FnOnce() -> Result<PathBuf>,
) -> Error {
    // A diverged policy must not replace the last good checkpoint.
    if matches!(cause, Error::NotFinite { .. }) {
        return cause;
    }
    let is_lost = matches!(cause, Error::Policy(PolicyError::DeviceLost(_)));
    let saved = match (is_lost, copy) {
        (true, None) => return store.interrupted(cause),
        (true, Some(copy)) => copy.save(config, store),
        (false, _) => save(),
    };
    match saved {
        Ok(checkpoint) => Error::Interrupted { checkpoint, cause: Box::new(cause) },
        // A full disk stops the run and the attempt to save it alike: said once.
        Err(error) if error.to_string() == cause.to_string() => store.interrupted(cause),
        Err(error) => {
            store.interrupted(Error::Unsaved { error: Box::new(error), cause: Box::new(cause) })
        }
    }
}

/// What a checkpoint holds; its tensors stay in their files until they are asked for.
pub(super) struct Saved {
    pub state: RunState,
    pub config: Config,
    pub buffer: Option<Buffer>,
    parameters: Checkpoint<Mapped>,
    optimiser: Checkpoint<Mapped>,
    adapter: Option<AdapterConfig>,
}

impl Saved {
    /// What the policy loads.
    pub fn policy(&self) -> StateSource<'_> {
        let adapter = self.adapter.as_ref();
        StateSource { parameters: &self.parameters, optimiser: &self.optimiser, adapter }
    }
}

/// Writes the files of a checkpoint. `policy` gives what it saves.
pub(super) fn write(
    to: &mut Writer<'_>,
    state: &RunState,
    config: &Config,
    buffer: Option<&Buffer>,
    policy: impl FnOnce(&mut dyn StateSink) -> Result<()>,
) -> Result<()> {
    let json = |name: &str, value: serde_json::Result<Vec<u8>>| {
        value.map_err(|e| Error::io("cannot encode", name)(e.into()))
    };
    to.file(STATE, &json(STATE, serde_json::to_vec_pretty(state))?)?;
    to.file(CONFIG, config.documented().as_bytes())?;
    if let Some(buffer) = buffer {
        to.file(BUFFER, &json(BUFFER, serde_json::to_vec(buffer))?)?;
        for (i, asked) in buffer.prompts.iter().enumerate() {
            to.file(&photo(i), &asked.image)?;
        }
    }
    let coming = Vec::new().into_iter();
    let mut tensors = TensorFiles { to, coming, optimiser: None, has_begun: false };
    policy(&mut tensors)?;
    tensors.finish()
}

fn photo(i: usize) -> String {
    format!("photos/{i:04}")
}

/// Puts parameters and then the state of the optimiser into two files, as they come.
struct TensorFiles<'w, 'd> {
    to: &'w mut Writer<'d>,
    /// What the file begun is still to hold.
    coming: IntoIter<NamedShape>,
    /// What the second file is to hold, until it is begun.
    optimiser: Option<Vec<NamedShape>>,
    has_begun: bool,
}

impl TensorFiles<'_, '_> {
    fn begin_file(
        &mut self,
        name: &str,
        tensors: Vec<NamedShape>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<()> {
        let shapes = tensors.iter().map(|(name, shape)| (name.as_str(), &shape[..]));
        let header = f32_safetensors_header(shapes, metadata)?;
        self.to.begin(name)?;
        self.to.append(&header)?;
        self.coming = tensors.into_iter();
        Ok(())
    }

    /// Begins the second file once the first is full.
    fn go_on(&mut self) -> Result<()> {
        match self.optimiser.take_if(|_| self.coming.as_slice().is_empty()) {
            Some(tensors) => self.begin_file(OPTIMISER, tensors, &BTreeMap::new()),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<()> {
        self.go_on()?;
        match self.coming.next() {
            Some((name, _)) => Err(missing(&name)),
            None if !self.has_begun => Err(missing(PARAMETERS)),
            None => Ok(()),
        }
    }
}

impl StateSink for TensorFiles<'_, '_> {
    fn begin(&mut self, layout: StateLayout) -> Result<()> {
        (self.optimiser, self.has_begun) = (Some(layout.optimiser), true);
        let Some(adapter) = layout.adapter else {
            return self.begin_file(PARAMETERS, layout.parameters, &BTreeMap::new());
        };
        self.to.file(&format!("{ADAPTER}/{ADAPTER_CONFIG}"), &adapter.to_file())?;
        let name = format!("{ADAPTER}/{ADAPTER_MODEL}");
        self.begin_file(&name, layout.parameters, &peft_metadata())
    }

    fn tensor(&mut self, values: &[f32]) -> Result<()> {
        self.go_on()?;
        let (name, shape) = self.coming.next().ok_or_else(too_many)?;
        check_size(&name, &shape, values.len())?;
        self.to.append_f32(values)
    }
}

/// [`open`] for a run with this configuration over a policy of this identity. `allow_changes` accepts
/// a configuration that learns otherwise.
pub(super) fn open_for(
    loaded: &Loaded,
    config: &Config,
    identity: String,
    allow_changes: bool,
) -> Result<Saved> {
    let saved = open(loaded)?;
    let differences = saved.config.differences(config);
    let changed: Vec<String> =
        differences.iter().filter(|d| !d.harmless).map(ToString::to_string).collect();
    if !changed.is_empty() && !allow_changes {
        return Err(Error::ResumeChanged { differences: changed });
    }
    if saved.state.identity != identity {
        let (saved, got) = (saved.state.identity, identity);
        return Err(Error::ResumeOther { path: loaded.path.clone(), saved, got });
    }
    Ok(saved)
}

/// Reads what [`write`] wrote. Earlier versions put tensors in the order of their names, which is as
/// good.
pub(super) fn open(loaded: &Loaded) -> Result<Saved> {
    let bad = |file: &str, reason: String| Error::CheckpointCorrupt {
        path: loaded.path.clone(),
        reason: format!("{file}: {reason}"),
        previous: None,
    };
    let state =
        serde_json::from_slice(&loaded.read(STATE)?).map_err(|e| bad(STATE, e.to_string()))?;
    let config = config_of(loaded)?;
    let (parameters, adapter) = if loaded.files.contains(PARAMETERS) {
        (loaded.tensors(PARAMETERS)?, None)
    } else {
        let adapter =
            AdapterConfig::from_json(&loaded.read(&format!("{ADAPTER}/{ADAPTER_CONFIG}"))?)
                .map_err(|reason| bad(ADAPTER_CONFIG, reason))?;
        (loaded.tensors(&format!("{ADAPTER}/{ADAPTER_MODEL}"))?, Some(adapter))
    };
    let optimiser = loaded.tensors(OPTIMISER)?;
    let mut buffer: Option<Buffer> = match loaded.files.contains(BUFFER) {
        true => {
            let json = loaded.read(BUFFER)?;
            Some(serde_json::from_slice(&json).map_err(|e| bad(BUFFER, e.to_string()))?)
        }
        false => None,
    };
    for (i, asked) in buffer.iter_mut().flat_map(|b| b.prompts.iter_mut()).enumerate() {
        asked.image = loaded.read(&photo(i))?;
    }
    Ok(Saved { state, config, buffer, parameters, optimiser, adapter })
}

fn config_of(loaded: &Loaded) -> Result<Config> {
    let text = String::from_utf8_lossy(&loaded.read(CONFIG)?).into_owned();
    Config::parse(&text, &loaded.path.join(CONFIG).display().to_string())
}

/// What changed in the configuration since a checkpoint was saved, to be shown before resuming.
///
/// # Errors
/// If the checkpoint's configuration cannot be read.
pub fn resume_differences(loaded: &Loaded, config: &Config) -> Result<Vec<Difference>> {
    Ok(config_of(loaded)?.differences(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensors;

    /// Gives `b` before `a`, as a model gives its tensors in an order of its own.
    fn give(sink: &mut dyn StateSink) -> Result<()> {
        let named = |name: &str| (name.to_owned(), vec![2]);
        let (parameters, optimiser) = (vec![named("b"), named("a")], vec![named("steps")]);
        sink.begin(StateLayout { parameters, optimiser, adapter: None })?;
        [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]].iter().try_for_each(|values| sink.tensor(values))
    }

    fn state() -> PolicyState {
        let mut state = PolicyState::default();
        state.parameters.insert("a".into(), &[2], vec![3.0, 4.0]);
        state.parameters.insert("b".into(), &[2], vec![1.0, 2.0]);
        state.optimiser.insert("steps".into(), &[2], vec![5.0, 6.0]);
        state
    }

    fn checkpoint(
        store: &Store,
        step: u64,
        policy: impl FnOnce(&mut dyn StateSink) -> Result<()>,
    ) -> Result<()> {
        let (state, config) = (RunState::default(), Config::default());
        store.save(&mut RealDisk, step, |to| write(to, &state, &config, None, policy)).map(|_| ())
    }

    #[test]
    fn tensors_come_back_whatever_their_order() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::new(temp.path(), 0);
        checkpoint(&store, 1, give).unwrap();
        checkpoint(&store, 2, |sink| state().save_to(sink)).unwrap();
        for step in [1, 2] {
            let saved = open(&store.load(step).unwrap()).unwrap();
            assert_eq!(saved.policy().collect().unwrap(), state());
        }
        let file = |step| store.load(step).unwrap().read(PARAMETERS).unwrap();
        assert_ne!(file(1), file(2), "the order is that in which they came");
        // What was written in one piece before is what names in their order give now.
        assert_eq!(file(2), state().parameters.to_bytes(&BTreeMap::new()).unwrap());
        assert_eq!(Tensors::from_bytes(file(1)).unwrap(), state().parameters);
    }

    fn one_and_one() -> StateLayout {
        let named = |name: &str| (name.to_owned(), vec![1]);
        let (parameters, optimiser) = (vec![named("a")], vec![named("m")]);
        StateLayout { parameters, optimiser, adapter: None }
    }

    #[test]
    fn half_a_state_is_no_checkpoint() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::new(temp.path(), 0);
        let error = |policy: fn(&mut dyn StateSink) -> Result<()>| {
            let error = checkpoint(&store, 1, policy).unwrap_err();
            assert!(matches!(error, Error::PolicyContract { .. }), "{error}");
            error.to_string()
        };
        assert!(error(|_| Ok(())).contains("did not come"));
        assert!(error(|sink| sink.begin(one_and_one())).contains("`a` did not come"));
        let only_parameters = |sink: &mut dyn StateSink| {
            sink.begin(one_and_one())?;
            sink.tensor(&[1.0])
        };
        assert!(error(only_parameters).contains("`m` did not come"));
        let too_long = |sink: &mut dyn StateSink| {
            sink.begin(one_and_one())?;
            sink.tensor(&[1.0, 2.0])
        };
        assert!(error(too_long).contains("2 values"));
        assert_eq!(store.steps().unwrap(), [0; 0]);
    }
}
