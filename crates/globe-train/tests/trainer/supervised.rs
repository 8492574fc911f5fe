//! Imitation and judgement.

use std::sync::atomic::AtomicBool;

use globe_train::{
    Error,
    config::Config,
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
            config.training.micro_batch = micro_batch;
            let mut trained = supervised(&config, task);
            run(&mut trained).unwrap();
            trained.policy().table().to_vec()
        };
        assert!(table(1) == table(3), "{task:?}");
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
