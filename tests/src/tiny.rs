//! The tiny run of `configs/tiny.toml`, which several tests train.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use globe_engine::Engine;
use globe_format::Folder;
use globe_geo::Gazetteer;
use globe_model::{Model, Precision};
use globe_policy::{ModelPolicy, PolicyOptions, Shared, from_peft, identity};
use globe_text::Prompt as Wording;
use globe_train::assemble::{rewards, stream};
use globe_train::checkpoint::Adapter;
use globe_train::config::{Config, Weights};
use globe_train::data::Part;
use globe_train::trainer::Trainer;

use crate::{golden_root, gpu};

/// `configs/tiny.toml`, with the folders of this machine.
///
/// # Panics
/// If it cannot be read.
pub fn config(output: &Path) -> Config {
    let root = golden_root().join("../..");
    let mut config = Config::open(&root.join("configs/tiny.toml")).unwrap();
    let place = |path: &str| root.join(path).display().to_string();
    config.run.output = output.display().to_string();
    for path in [
        &mut config.model.path,
        &mut config.model.adapter,
        &mut config.model.question,
        &mut config.data.path,
        &mut config.data.images,
    ] {
        *path = place(path);
    }
    config.watch.samples_every = 0;
    config
}

/// The model that it names, on the adapter under test.
///
/// # Panics
/// If it cannot be loaded.
pub fn engine(config: &Config) -> Shared {
    let folder = Folder::open(Path::new(&config.model.path)).unwrap();
    let mut quiet = |_, _| {};
    let engine = Engine::load(&folder, gpu().clone(), &mut quiet);
    Rc::new(RefCell::new(pollster::block_on(engine).unwrap()))
}

/// Its adapter over that model.
///
/// # Panics
/// If they do not fit together.
pub fn policy(config: &Config, engine: Shared) -> ModelPolicy {
    let adapter = Adapter::open(Path::new(&config.model.adapter)).unwrap();
    let user = std::fs::read_to_string(&config.model.question).unwrap().trim_end().to_owned();
    let prompt = Wording { user, ..Wording::reason() };
    let options = PolicyOptions {
        identity: identity(Path::new(&config.model.path), &prompt).unwrap(),
        prompt,
        max_pixels: Some(config.model.max_pixels as usize),
        adamw: (&config.optimiser).into(),
    };
    let shape = adapter.config.clone();
    ModelPolicy::new(engine, options, shape, &from_peft(adapter)).unwrap()
}

/// All weights, with a copy of the model before training.
fn policy_of_weights(config: &Config) -> ModelPolicy {
    let folder = Folder::open(Path::new(&config.model.path)).unwrap();
    let (compute, mut quiet) = (gpu(), |_, _| {});
    let trained = Engine::load_as(&folder, compute.clone(), Precision::Trained, &mut quiet);
    let engine = Rc::new(RefCell::new(pollster::block_on(trained).unwrap()));
    let mut quiet = |_, _| {};
    let reference = pollster::block_on(async {
        let config = globe_model::Config::load(&folder).await?;
        Model::load(&folder, config, compute, Precision::Stored, &mut quiet).await
    });
    let user = std::fs::read_to_string(&config.model.question).unwrap().trim_end().to_owned();
    let options = PolicyOptions {
        prompt: Wording { user, ..Wording::reason() },
        max_pixels: Some(config.model.max_pixels as usize),
        adamw: (&config.optimiser).into(),
        identity: "weights".into(),
    };
    let (vision, reference) = (config.model.train_vision, Some(reference.unwrap()));
    ModelPolicy::of_weights(engine, options, vision, reference).unwrap()
}

/// A run from its start.
///
/// # Panics
/// If something that it names cannot be loaded.
pub fn trainer(config: &Config) -> Trainer<ModelPolicy> {
    let policy = match config.model.weights {
        Weights::Full => policy_of_weights(config),
        _ => policy(config, engine(config)),
    };
    let gazetteer = Arc::new(Gazetteer::full().unwrap());
    let mut no_judge = |_: &Path| unreachable!("no reward asks a judge");
    let rewards = rewards(config, gazetteer, || Ok(BTreeSet::new()), &mut no_judge).unwrap();
    let data = stream(config, Part::Train).unwrap();
    Trainer::new(config.clone(), policy, data, rewards)
}
