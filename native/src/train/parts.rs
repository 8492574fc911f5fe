//! From a configuration to a policy and its rewards.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use globe_engine::{Engine, LoadOptions};
use globe_format::Folder;
use globe_geo::Gazetteer;
use globe_model::{Model, Summary};
use globe_ops::{Compute, DeviceChoice};
use globe_policy::{ModelJudge, ModelPolicy, PolicyOptions, Shared, fresh, from_peft, identity};
use globe_text::Prompt;
use globe_train::assemble::{adapter_config, rewards};
use globe_train::checkpoint::Adapter;
use globe_train::config::{Config, Weights};
use globe_train::data::Stream;
use globe_train::rewards::{Judge, RewardSet};

use crate::exit::{Fail, OrUsage};
use crate::input::{load_onto, read_text};

/// A policy, and what its judge shares with it.
pub struct Parts {
    pub policy: ModelPolicy,
    engine: Shared,
    max_pixels: Option<usize>,
}

/// Loads the model and puts the adapter on it that training starts from.
pub fn load(config: &Config, quiet: bool) -> Result<Parts, Fail> {
    let folder = model_folder(config)?;
    let summary = pollster::block_on(Model::inspect(&folder)).or_usage()?;
    check_weights(config, &summary).or_usage()?;
    let compute = open_device(config)?;
    let engine = pollster::block_on(load_onto(&folder, compute, &LoadOptions::default(), quiet))?;
    let (adapter, modules) = adapter(config, &engine).or_usage()?;
    let prompt = question(config).or_usage()?;
    let options = PolicyOptions {
        identity: identity(folder.path(), &prompt)
            .with_context(|| format!("cannot read {}", folder.path().display()))?,
        prompt,
        max_pixels: max_pixels(config),
        adamw: (&config.optimiser).into(),
    };
    let engine: Shared = Rc::new(RefCell::new(engine));
    let policy = ModelPolicy::new(engine.clone(), options, adapter, &modules).or_usage()?;
    Ok(Parts { policy, engine, max_pixels: max_pixels(config) })
}

fn max_pixels(config: &Config) -> Option<usize> {
    Some(config.model.max_pixels as usize).filter(|n| *n > 0)
}

/// What is asked about a photo.
fn question(config: &Config) -> anyhow::Result<Prompt> {
    match config.model.question.as_str() {
        "reason" => Ok(Prompt::reason()),
        "direct" => Ok(Prompt::direct()),
        path => {
            let user = read_text(Path::new(path)).context("model.question")?;
            Ok(Prompt { user, ..Prompt::reason() })
        }
    }
}

/// The device that the configuration names.
pub fn open_device(config: &Config) -> Result<Compute, Fail> {
    let choice: DeviceChoice =
        config.model.device.parse().map_err(|e| anyhow!("model.device: {e}")).or_usage()?;
    pollster::block_on(globe_ops::open_device(choice)).or_usage()
}

/// The folder of the base model.
pub fn model_folder(config: &Config) -> Result<Folder, Fail> {
    let path = Some(&config.model.path).filter(|path| !path.is_empty());
    let path = path.context("model.path is not set: name the folder of the model").or_usage()?;
    Folder::open(Path::new(path)).context("model.path").or_usage()
}

/// Errors unless the folder holds weights of the kind that is asked for.
fn check_weights(config: &Config, summary: &Summary) -> anyhow::Result<()> {
    let is_four_bit = summary.formats.iter().any(|stored| stored.format == "q4");
    let path = &config.model.path;
    if config.model.train_vision {
        bail!("model.train_vision: only the language model can be trained; set it to false");
    }
    match config.model.weights {
        Weights::Full => bail!(
            "model.weights = \"full\" is not supported yet: use \"lora\", or \"qlora\" over 4-bit weights"
        ),
        Weights::Qlora if !is_four_bit => bail!(
            "model.weights = \"qlora\" needs 4-bit weights, {path} has none: run \
             `globe convert --from {path} --out {path}-q4 --bits 4` and set model.path to it"
        ),
        Weights::Lora if is_four_bit => bail!(
            "model.weights = \"lora\" needs 16-bit weights, those of {path} have 4 bits: set it to \
             \"qlora\", or model.path to the folder it was converted from"
        ),
        _ => Ok(()),
    }
}

/// The adapter to start from: the one named, or a fresh one.
fn adapter(
    config: &Config,
    engine: &Engine,
) -> anyhow::Result<(globe_train::checkpoint::AdapterConfig, globe_model::LoraModules)> {
    if !config.model.adapter.is_empty() {
        let adapter = Adapter::open(Path::new(&config.model.adapter)).context("model.adapter")?;
        return Ok((adapter.config.clone(), from_peft(adapter)));
    }
    let lora = &config.lora;
    let adapter = adapter_config(lora, &config.model.path);
    let modules = fresh(engine.model(), &adapter, &lora.targets, config.run.seed);
    for target in &lora.targets {
        if !modules.keys().any(|module| module.ends_with(&format!(".{target}"))) {
            bail!(
                "lora.targets: `{target}` is no projection of the language model; known are q_proj, \
                 k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj"
            );
        }
    }
    Ok((adapter, modules))
}

impl Parts {
    /// The rewards, whose judge may use the engine of the policy.
    pub fn rewards(&mut self, config: &Config, data: &Stream) -> Result<RewardSet, Fail> {
        let gazetteer = Arc::new(Gazetteer::full()?);
        let clues = || data.data().clues();
        let mut judge = |folder: &Path| {
            let adapter = Adapter::open(folder)?;
            let judge = ModelJudge::new(self.engine.clone(), adapter, self.max_pixels);
            let judge = judge.map_err(|e| globe_train::Error::Adapter {
                path: PathBuf::from(folder),
                reason: e.to_string(),
            })?;
            Ok(Box::new(judge) as Box<dyn Judge>)
        };
        rewards(config, gazetteer, clues, &mut judge).or_usage()
    }
}
