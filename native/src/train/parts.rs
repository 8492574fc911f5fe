//! From a configuration to a policy and its rewards.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use globe_engine::{Engine, LoadOptions};
use globe_format::Folder;
use globe_geo::Gazetteer;
use globe_model::{Config as ModelConfig, Model, Precision, Summary};
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
use crate::memory::{CacheBits, MemoryArgs};

use super::Method;
use super::plan::Plan;

/// Formats that only folders of `globe convert` have.
const PACKED: [&str; 4] = ["q4", "q8", "f16", "f32"];

/// A policy, and what its judge shares with it.
pub struct Parts {
    pub policy: ModelPolicy,
    engine: Shared,
    max_pixels: Option<usize>,
}

/// Loads the model and makes a policy of it, with the adapter that training starts from or with all
/// weights.
pub fn load(method: Method, config: &Config, quiet: bool) -> Result<Parts, Fail> {
    let folder = model_folder(config)?;
    let summary = pollster::block_on(Model::inspect(&folder)).or_usage()?;
    check_weights(config, &summary).or_usage()?;
    let compute = open_device(config)?;
    let is_full = config.model.weights == Weights::Full;
    let mut options = LoadOptions::default();
    if is_full {
        let plan = Plan::new(method, config, &summary.config, &folder).or_usage()?;
        plan.check(
            config,
            MemoryArgs { memory_mb: None, cache_bits: CacheBits::default() }.on(&compute)?.bytes,
        )
        .or_usage()?;
        options.precision = Precision::Trained;
    }
    let engine = pollster::block_on(load_onto(&folder, compute.clone(), &options, quiet))?;
    let prompt = question(config).or_usage()?;
    let options = PolicyOptions {
        identity: identity(folder.path(), &prompt)
            .with_context(|| format!("cannot read {}", folder.path().display()))?,
        prompt,
        max_pixels: max_pixels(config),
        adamw: (&config.optimiser).into(),
    };
    let engine: Shared = Rc::new(RefCell::new(engine));
    let policy = if is_full {
        let reference = match needs_reference(method, config) {
            true => Some(reference(&folder, summary.config, &compute).or_usage()?),
            false => None,
        };
        let vision = config.model.train_vision;
        ModelPolicy::of_weights(engine.clone(), options, vision, reference)
    } else {
        let (adapter, modules) = adapter(config, &engine.borrow()).or_usage()?;
        ModelPolicy::new(engine.clone(), options, adapter, &modules)
    };
    let policy = policy.or_usage()?;
    let policy = match packing(method, config) {
        Some(max_tokens) => policy.with_packing(max_tokens),
        None => policy,
    };
    let policy = match method {
        Method::Sft => policy.with_label_smoothing(config.training.label_smoothing),
        Method::Grpo | Method::Reward => policy,
    };
    Ok(Parts { policy, engine, max_pixels: max_pixels(config) })
}

/// Whether the loss compares with the model before training.
pub fn needs_reference(method: Method, config: &Config) -> bool {
    method == Method::Grpo && config.loss.beta > 0.0
}

/// Tokens of a sequence that rows share, if they do. Answers to one prompt share it already.
pub fn packing(method: Method, config: &Config) -> Option<usize> {
    let training = &config.training;
    (method != Method::Grpo && training.packing).then_some(training.max_packed_tokens)
}

/// The model before training, as it is stored.
fn reference(folder: &Folder, config: ModelConfig, compute: &Compute) -> anyhow::Result<Model> {
    let mut quiet = |_, _| {};
    let model = Model::load(folder, config, compute, Precision::Stored, &mut quiet);
    pollster::block_on(model).context("cannot load the copy that loss.beta compares with")
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
    let is_packed = summary.formats.iter().any(|stored| PACKED.contains(&stored.format));
    match config.model.weights {
        Weights::Full if is_packed => bail!(
            "model.weights = \"full\" needs unrounded weights, those of {path} are packed: set \
             model.path to the folder it was converted from"
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
