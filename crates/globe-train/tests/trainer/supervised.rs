//! Imitation and judgement.

use std::{path::Path, sync::atomic::AtomicBool};

use globe_train::{
    Error, PolicyError,
    config::{Config, Weights},
    data::{Dataset, Part, Stream, StreamOptions},
    trainer::{Supervised, Task, TrainEvent},
};

use super::{Steps, config, stream, tabular::Tabular, write_data};

fn run(run: &mut Supervised<Tabular>) -> globe_train::Result<Steps> {
    let mut steps = Vec::new();
    let mut watch = |event: &TrainEvent<'_>| {
        if let TrainEvent::Step(stats) = event {
            let mut values = stats.values.clone();
            values.retain(|name, _| !name.starts_with("time/"));
            steps.push(values);
        }
        Ok(())
    };
    run.run(&mut watch, &AtomicBool::new(false))?;
    Ok(steps)
}

fn supervised(config: &Config, task: Task) -> Supervised<Tabular> {
    Supervised::new(config.clone(), task, Tabular::new(3), stream(config), None)
}

#[test]
fn imitation_and_judgement_are_learnt_and_resume_exactly() {
    for (task, least) in [(Task::Imitate, 0.05), (Task::Judge, 0.1)] {
        let temp = tempfile::tempdir().unwrap();
        write_data(temp.path());
        let mut config = config(temp.path());
        config.training.steps = 60;
        config.checkpoint.every = 30;
        config.optimiser.lr = 0.3;
        let steps = run(&mut supervised(&config, task)).unwrap();
        assert!(steps[0]["loss"] > 0.3, "{task:?}: {}", steps[0]["loss"]);
        assert!(steps[59]["loss"] < least, "{task:?}: {}", steps[59]["loss"]);
        if task == Task::Judge {
            assert_eq!(steps[59]["accuracy"], 1.0);
        }
        let mut second = supervised(&config, task);
        second.resume(&second.store().load(30).unwrap(), false).unwrap();
        assert_eq!(run(&mut second).unwrap(), steps[30..], "{task:?}");
    }
}

#[test]
fn micro_batches_do_not_matter() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    for task in [Task::Imitate, Task::Judge] {
        let table = |micro_batch| {
            let mut config = config(temp.path());
            config.training.packing = false;
            config.training.micro_batch = micro_batch;
            let mut trained = supervised(&config, task);
            run(&mut trained).unwrap();
            trained.policy().table().to_vec()
        };
        assert!(table(1) == table(3), "{task:?}");
    }
}

/// Nine rows whose prompts have 7 to 23 tokens and whose answers read 6.
fn write_rows_of_many_lengths(folder: &Path) -> Vec<String> {
    write_data(folder);
    let path = folder.join("rows.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let ids: Vec<String> = (0..9).map(|i| format!("{}photo-{i}", "x".repeat(2 * i % 17))).collect();
    let mut rows = String::new();
    for (line, id) in text.lines().zip(&ids) {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["id"] = id.as_str().into();
        rows += &format!("{row}\n");
    }
    std::fs::write(path, rows).unwrap();
    ids
}

#[test]
fn packed_rows_fit_come_once_an_epoch_and_resume_exactly() {
    const LIMIT: usize = 60;
    for task in [Task::Imitate, Task::Judge] {
        let temp = tempfile::tempdir().unwrap();
        let mut ids = write_rows_of_many_lengths(temp.path());
        ids.sort();
        let mut config = config(temp.path());
        config.rollout.prompts = 6;
        config.training.steps = 9;
        config.training.max_packed_tokens = LIMIT;
        let mut whole = supervised(&config, task);
        let steps = run(&mut whole).unwrap();
        let (targets, read) = if task == Task::Judge { (2, 0) } else { (1, 6) };
        let passes = std::mem::take(&mut whole.policy().seen);
        for pass in &passes {
            let tokens: usize = pass.iter().step_by(targets).map(|id| id.len() + read).sum();
            assert!(tokens <= LIMIT, "{task:?}: {tokens} tokens in {pass:?}");
        }
        let counted: f64 = steps.iter().map(|step| step["micro_batches"]).sum();
        assert_eq!(counted, passes.len() as f64);
        assert!(passes.len() <= 9 * 4, "{task:?}: {} passes for 54 rows", passes.len());
        // Within a step rows change places, and steps of six begin an epoch of nine with every third.
        let mut begin = 0;
        let mut rows: Vec<Vec<String>> = Vec::new();
        for step in &steps {
            let end = begin + step["micro_batches"] as usize;
            let of_step = passes[begin..end].iter().flatten().step_by(targets).cloned();
            rows.push(of_step.collect());
            assert_eq!(rows[rows.len() - 1].len(), 6);
            begin = end;
        }
        for epochs in rows.chunks_exact(3) {
            let mut seen = epochs.concat();
            seen.sort();
            let twice: Vec<String> = ids.iter().flat_map(|id| [id.clone(), id.clone()]).collect();
            assert_eq!(seen, twice, "{task:?}");
        }

        let table = whole.policy().table().to_vec();
        let mut second = supervised(&config, task);
        second.resume(&second.store().load(3).unwrap(), false).unwrap();
        assert_eq!(run(&mut second).unwrap(), steps[3..], "{task:?}");
        assert!(second.policy().table() == table, "{task:?}");

        config.training.packing = false;
        config.training.micro_batch = 1;
        config.run.output = temp.path().join("unpacked").display().to_string();
        let mut unpacked = supervised(&config, task);
        let apart = run(&mut unpacked).unwrap();
        assert_eq!(unpacked.policy().seen.len(), 54);
        for (a, b) in apart.iter().zip(&steps) {
            assert!((a["loss"] - b["loss"]).abs() < 1e-6 * b["loss"].abs(), "{task:?}");
        }
    }
}

/// A policy that learns too fast overshoots: the evaluation gets worse and training stops.
#[test]
fn training_stops_when_the_evaluation_no_longer_improves() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let mut config = config(temp.path());
    config.data.eval_fraction = 0.5;
    config.training.eval_every = 2;
    config.training.patience = 3;
    config.training.steps = 4000;
    config.checkpoint.every = 4000;
    config.optimiser.lr = 0.5;
    let part = |part| {
        let data = Dataset::open(config.data.path.as_ref(), None).unwrap();
        let options = StreamOptions { seed: 1, eval_fraction: 0.5, part, ..Default::default() };
        Stream::new(data, options)
    };
    // Evaluated on photos whose labels are the opposite of those trained on, it must get worse.
    let text = std::fs::read_to_string(temp.path().join("rows.jsonl")).unwrap();
    let swapped =
        text.replace("\"yes\"", "\"?\"").replace("\"no\"", "\"yes\"").replace("\"?\"", "\"no\"");
    std::fs::write(temp.path().join("swapped.jsonl"), swapped).unwrap();
    let data = Dataset::open(&temp.path().join("swapped.jsonl"), None).unwrap();
    let eval = Stream::new(data, StreamOptions { part: Part::Train, ..StreamOptions::default() });
    let train = part(Part::Train);
    let mut trained =
        Supervised::new(config.clone(), Task::Judge, Tabular::new(3), train, Some(eval));
    let steps = run(&mut trained).unwrap();
    assert!(steps.len() < 50, "{} steps", steps.len());
    assert!(steps[1].contains_key("eval_loss") && steps[1].contains_key("eval_accuracy"));
    let (first, last) = (steps[1]["eval_loss"], steps[steps.len() - 1]["eval_loss"]);
    assert!(last > first, "{first} {last}");
    let evaluated = steps.iter().zip(1u64..).filter_map(|(s, i)| Some((i, *s.get("eval_loss")?)));
    let best = evaluated.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(step, _)| step);
    assert_eq!(trained.best_store().newest().unwrap().map(|c| c.step), best);
}

#[test]
fn a_failure_leaves_a_checkpoint_of_the_last_step() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let config = config(temp.path());
    let steps = run(&mut supervised(&config, Task::Imitate)).unwrap();
    let lost: fn() -> PolicyError = || PolicyError::DeviceLost("reset".into());
    for error in [lost, || PolicyError::failed("odd")] {
        std::fs::remove_dir_all(&config.run.output).unwrap();
        let mut first = supervised(&config, Task::Imitate);
        first.policy().fail_backward = Some((3, error)); // one pass per step
        let error = run(&mut first).unwrap_err();
        let Error::Interrupted { checkpoint, .. } = &error else { panic!("{error}") };
        assert!(checkpoint.ends_with("step-00000002"), "{error}");
        let mut second = supervised(&config, Task::Imitate);
        second.resume(&second.store().load(2).unwrap(), false).unwrap();
        assert_eq!(run(&mut second).unwrap(), steps[2..]);
    }
}

/// There is no host copy of all weights.
#[test]
fn a_lost_device_names_the_last_checkpoint_of_all_weights() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let mut config = config(temp.path());
    config.model.weights = Weights::Full;
    config.checkpoint.every = 2;
    let mut first = supervised(&config, Task::Imitate);
    first.policy().fail_backward = Some((4, || PolicyError::DeviceLost("reset".into())));
    let error = run(&mut first).unwrap_err();
    let Error::Interrupted { checkpoint, cause } = &error else { panic!("{error}") };
    assert!(checkpoint.ends_with("step-00000002"), "{error}");
    assert!(matches!(**cause, Error::Policy(PolicyError::DeviceLost(_))));
    assert_eq!(first.store().steps().unwrap(), [2]);
}

#[test]
fn rows_without_an_answer_are_errors_with_their_id() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let path = temp.path().join("rows.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    for (key, task) in [("response", Task::Imitate), ("label", Task::Judge)] {
        std::fs::write(&path, text.replace(&format!("\"{key}\""), "\"other\"")).unwrap();
        let error = run(&mut supervised(&config(temp.path()), task)).unwrap_err();
        assert!(matches!(error, Error::Row { .. }), "{error}");
        assert!(error.to_string().contains(&format!("no `{key}`")), "{error}");
    }
}
