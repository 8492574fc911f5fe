//! What goes wrong is said, saved and resumable.

use std::{path::Path, sync::atomic::AtomicBool};

use globe_train::{
    Error, PolicyError, Result,
    config::Config,
    rewards::{Attempt, Combination, Reward, RewardSet},
    trainer::{Ending, TrainEvent, Trainer},
};

use super::{config, rewards, run, stream, tabular::Tabular, trainer, write_data};

/// A reward whose server goes down after some calls.
struct GoesDown(usize);

impl Reward for GoesDown {
    fn name(&self) -> &str {
        "goes_down"
    }

    fn score(&mut self, attempts: &[Attempt<'_>]) -> Result<Vec<Option<f64>>> {
        self.0 -= 1;
        match self.0 {
            0 => Err(Error::Judge { url: "http://x".into(), reason: "refused".into() }),
            _ => Ok(attempts.iter().map(|a| Some(a.text.len() as f64 / 100.0)).collect()),
        }
    }
}

#[test]
fn a_reward_server_that_goes_down_stops_the_run_with_a_checkpoint() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let config = config(temp.path());
    let with = |calls| RewardSet::new(Combination::Additive).with(GoesDown(calls), 1.0);
    let make = |calls| Trainer::new(config.clone(), Tabular::new(3), stream(&config), with(calls));
    let steps = run(&mut make(99)).unwrap();

    let mut first = make(5);
    let error = run(&mut first).unwrap_err();
    let Error::Interrupted { checkpoint, cause } = &error else { panic!("{error}") };
    assert!(checkpoint.ends_with("step-00000004") && matches!(**cause, Error::Judge { .. }));
    let mut second = make(99);
    second.resume(&second.store().load(4).unwrap(), false).unwrap();
    assert_eq!(run(&mut second).unwrap(), steps[4..], "the photos of the failed step come again");
}

/// With beta above 0 no micro-batch is left out: six of four answers per step.
fn with_reference(folder: &Path) -> Config {
    let mut config = config(folder);
    config.loss.beta = 0.01;
    config
}

#[test]
fn a_lost_device_leaves_the_host_copy_of_the_last_step() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let config = with_reference(temp.path());
    let steps = run(&mut trainer(&config)).unwrap();
    let mut first = trainer(&config);
    // In the midst of step three.
    first.policy().fail_backward = Some((15, || PolicyError::DeviceLost("reset".into())));
    let error = run(&mut first).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("the device was lost: reset") && text.contains("step-00000002"),
        "{text}"
    );
    let mut second = trainer(&config);
    second.resume(&second.store().load(2).unwrap(), false).unwrap();
    assert_eq!(run(&mut second).unwrap(), steps[2..]);
}

#[test]
fn a_failure_in_the_midst_of_a_step_keeps_its_answers() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let config = with_reference(temp.path());
    let steps = run(&mut trainer(&config)).unwrap();
    let mut first = trainer(&config);
    first.policy().fail_backward = Some((15, || PolicyError::failed("odd")));
    assert!(matches!(run(&mut first), Err(Error::Interrupted { .. })));
    let mut second = trainer(&config);
    second.resume(&second.store().load(2).unwrap(), false).unwrap();
    assert_eq!(run(&mut second).unwrap(), steps[2..]);
}

#[test]
fn gradients_that_are_no_numbers_are_left_out_and_then_fatal() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let mut config = with_reference(temp.path());
    let mut once = trainer(&config);
    once.policy().poison_backward = Some(3);
    let mut warnings = Vec::new();
    let mut watch = |event: &TrainEvent<'_>| {
        if let TrainEvent::Warning(text) = event {
            warnings.push((*text).to_owned());
        }
        Ok(())
    };
    once.run(&mut watch, &AtomicBool::new(false)).unwrap();
    assert_eq!(warnings, ["step 1: gradient norm NaN, step left out"]);
    assert_eq!(once.state().guard.skipped, 1);
    assert!(once.policy().table().iter().all(|x| x.is_finite()));

    config.optimiser.max_bad_steps = 0;
    config.run.output = temp.path().join("other").display().to_string();
    let mut fatal = trainer(&config);
    fatal.policy().poison_backward = Some(8);
    assert!(matches!(run(&mut fatal), Err(Error::NotFinite { .. })));
    assert_eq!(fatal.store().steps().unwrap(), [0; 0], "nothing is saved over what was good");
}

#[test]
fn a_checkpoint_that_cannot_be_written_names_the_one_before() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let config = config(temp.path());
    let steps = run(&mut trainer(&config)).unwrap();
    std::fs::remove_dir_all(&config.run.output).unwrap();
    let mut first = trainer(&config);
    // As if the disk were full from step four on: a file stands where the next checkpoint goes.
    let blocked = first.store().path(6);
    let mut watch = |event: &TrainEvent<'_>| {
        if matches!(event, TrainEvent::Checkpoint(_)) {
            std::fs::write(&blocked, "in the way").unwrap();
        }
        Ok(())
    };
    let error = first.run(&mut watch, &AtomicBool::new(false)).unwrap_err();
    let Error::Interrupted { checkpoint, .. } = &error else { panic!("{error}") };
    assert!(checkpoint.ends_with("step-00000003"), "{error}");
    assert_eq!(error.to_string().matches("cannot replace").count(), 1, "said once: {error}");
    std::fs::remove_file(&blocked).unwrap();
    let mut second = trainer(&config);
    second.resume(&second.store().load(3).unwrap(), false).unwrap();
    assert_eq!(run(&mut second).unwrap(), steps[3..]);
}

#[test]
fn asked_to_stop_it_saves_and_ends() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let mut trainer = trainer(&config(temp.path()));
    let stop = AtomicBool::new(false);
    let mut watch = |event: &TrainEvent<'_>| {
        if let TrainEvent::Step(stats) = event {
            stop.store(stats.step == 2, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    };
    assert_eq!(trainer.run(&mut watch, &stop).unwrap(), Ending::Stopped);
    assert_eq!(trainer.store().newest().unwrap().unwrap().step, 2);
}

#[test]
fn a_watcher_that_fails_stops_the_run_with_a_checkpoint() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let config = config(temp.path());
    let mut trainer = Trainer::new(config.clone(), Tabular::new(3), stream(&config), rewards());
    let mut watch = |event: &TrainEvent<'_>| match event {
        TrainEvent::Step(stats) if stats.step == 2 => {
            Err(Error::Row { id: "log".into(), reason: "disk full".into() })
        }
        _ => Ok(()),
    };
    let error = trainer.run(&mut watch, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains("disk full") && error.contains("step-00000002"), "{error}");
}
