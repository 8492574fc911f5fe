//! A device that is lost in the middle of a step leaves the step before on the disk. Each case has a process of its own:
//! the device does not come back within one.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use globe_engine::Engine;
use globe_format::Folder;
use globe_geo::Gazetteer;
use globe_policy::{ModelPolicy, PolicyOptions, from_peft};
use globe_tests::{golden_root, gpu};
use globe_text::Prompt as Wording;
use globe_train::assemble::{rewards, stream};
use globe_train::checkpoint::Adapter;
use globe_train::config::Config;
use globe_train::data::Part;
use globe_train::trainer::{TrainEvent, Trainer};
use globe_train::{Error, PolicyError};

/// `configs/tiny.toml`, with the folders of this machine.
fn config(output: &Path) -> Config {
    let root = golden_root().join("../..");
    let mut config = Config::open(&root.join("configs/tiny.toml")).unwrap();
    let place = |path: &str| root.join(path).display().to_string();
    config.run.output = output.display().to_string();
    config.model.path = place(&config.model.path);
    config.model.adapter = place(&config.model.adapter);
    config.data.path = place(&config.data.path);
    config.data.images = place(&config.data.images);
    config.watch.samples_every = 1;
    config
}

fn trainer(config: &Config) -> Trainer<ModelPolicy> {
    let folder = Folder::open(Path::new(&config.model.path)).unwrap();
    let mut quiet = |_, _| {};
    let engine = Engine::load(&folder, gpu().clone(), &mut quiet);
    let engine = Rc::new(RefCell::new(pollster::block_on(engine).unwrap()));
    let options = PolicyOptions {
        identity: "tiny".into(),
        prompt: Wording::direct(),
        max_pixels: Some(config.model.max_pixels as usize),
        adamw: (&config.optimiser).into(),
    };
    let adapter = Adapter::open(Path::new(&config.model.adapter)).unwrap();
    let shape = adapter.config.clone();
    let policy = ModelPolicy::new(engine, options, shape, &from_peft(adapter)).unwrap();
    let mut no_judge = |_: &Path| unreachable!("no reward asks a judge");
    let gazetteer = Arc::new(Gazetteer::full().unwrap());
    let rewards = rewards(config, gazetteer, || Ok(BTreeSet::new()), &mut no_judge).unwrap();
    Trainer::new(config.clone(), policy, stream(config, Part::Train).unwrap(), rewards)
}

/// Where in the third step the device is lost, for the child process.
const MOMENT: &str = "GLOBE_TEST_LOST_WHILE";

#[test]
fn a_lost_device_leaves_the_step_before_on_the_disk() {
    for moment in ["sampling", "training"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let child = child.args(["--exact", "child_that_loses_its_device"]).env(MOMENT, moment);
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "while {moment}: {text}");
    }
}

#[test]
fn child_that_loses_its_device() {
    let Ok(moment) = std::env::var(MOMENT) else { return };
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(temp.path());
    config.loss.beta = 0.01; // so that no step goes without a backward pass
    let mut trainer = trainer(&config);
    let mut watch = |event: &TrainEvent<'_>| {
        let is_moment = match (&*moment, event) {
            ("sampling", TrainEvent::Step(stats)) => stats.step == 2,
            // Shown between sampling and the training pass.
            ("training", TrainEvent::Samples { step, .. }) => *step == 2,
            _ => false,
        };
        if is_moment {
            gpu().destroy();
        }
        Ok(())
    };
    let error = trainer.run(&mut watch, &AtomicBool::new(false)).unwrap_err();
    let Error::Interrupted { checkpoint, cause } = &error else { panic!("{error}") };
    assert!(matches!(**cause, Error::Policy(PolicyError::DeviceLost(_))), "{error}");
    assert!(checkpoint.ends_with("step-00000002"), "{error}");
    let saved = trainer.store().newest().unwrap().unwrap();
    assert_eq!(saved.step, 2);
    for file in ["adapter/adapter_model.safetensors", "optimiser.safetensors"] {
        assert!(!saved.read(file).unwrap().is_empty(), "{file}");
    }
}
