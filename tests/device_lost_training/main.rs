//! A device that is lost in the middle of a step leaves the step before on the disk. Each case has a process of its own:
//! the device does not come back within one.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;
use std::sync::atomic::AtomicBool;

use globe_tests::{gpu, tiny};
use globe_train::trainer::TrainEvent;
use globe_train::{Error, PolicyError};

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
    let mut config = tiny::config(temp.path());
    config.watch.samples_every = 1;
    config.loss.beta = 0.01; // so that no step goes without a backward pass
    let mut trainer = tiny::trainer(&config);
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
