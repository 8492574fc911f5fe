//! Training that is asked to stop, by SIGTERM and by Ctrl-C.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Instant;

use globe_train::checkpoint::Store;
use serde_json::Value;

use crate::cli::run;
use crate::train_cli::{PATIENCE, SHORT, settings, train};

/// A run whose standard error is read.
struct Training {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
}

impl Training {
    fn start(method: &str, settings: &Path) -> Self {
        let mut child = train(method, settings, &[]).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads until a line has `sign`.
    fn read_to(&mut self, sign: &str) {
        let found = self.lines.by_ref().map(Result::unwrap).any(|line| line.contains(sign));
        assert!(found, "it ended before it said `{sign}`");
    }

    fn send(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// The exit code and what was still said.
    fn end(mut self) -> (Option<i32>, String) {
        let rest: Vec<String> = self.lines.map(Result::unwrap).collect();
        (self.child.wait().unwrap().code(), rest.join("\n"))
    }
}

fn checkpoints(folder: &Path) -> Store {
    Store::new(folder.join("run/checkpoints"), 0)
}

/// What a run has written of every step, without times and memory.
fn metrics(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let without_times = |mut step: Value| {
        let values = step.as_object_mut().unwrap();
        values.retain(|name, _| !name.starts_with("time/") && !name.starts_with("memory/"));
        step
    };
    lines.filter(|line| line["step"].is_number()).map(without_times).collect()
}

/// Files of the last checkpoint that hold what was learnt.
fn learnt(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let store = checkpoints(folder);
    let last = store.path(*store.steps().unwrap().last().unwrap());
    let mut files = Vec::new();
    for name in
        ["adapter/adapter_model.safetensors", "parameters.safetensors", "optimiser.safetensors"]
    {
        if let Ok(bytes) = fs::read(last.join(name)) {
            files.push((PathBuf::from(name), bytes));
        }
    }
    assert_eq!(files.len(), 2);
    files
}

/// A run that `signal` stops after its first step, and that goes on, is the run that never stopped.
fn check_stopped(method: &str, name: &str, changes: &[(&str, &str)], signal: &str) {
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = settings(name, whole.path(), changes);
    run(train(method, &path, &[])).expect(0);

    let path = settings(name, stopped.path(), changes);
    let mut training = Training::start(method, &path);
    training.read_to("step 1/");
    training.send(signal);
    let (code, said) = training.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("stopping after this step"), "{said}");
    let again = format!("go on with `globe train {method} --config {} --resume`", path.display());
    assert!(said.contains(&again), "{said}");
    let saved = checkpoints(stopped.path()).newest().unwrap().unwrap().step;
    let total = metrics(whole.path()).len() as u64;
    assert!((1..total).contains(&saved), "stopped after step {saved} of {total}");
    assert_eq!(metrics(stopped.path()).len() as u64, saved, "the step under way was finished");

    run(train(method, &path, &["--resume"])).expect(0);
    assert_eq!(metrics(stopped.path()), metrics(whole.path()));
    assert!(learnt(stopped.path()) == learnt(whole.path()));
}

#[test]
fn sigterm_saves_and_the_run_goes_on_as_if_nothing_had_happened() {
    let changes = [&SHORT[..], &[("every", "100")]].concat();
    check_stopped("grpo", "tiny.toml", &changes, "-TERM");
}

#[test]
fn ctrl_c_saves_training_with_known_answers() {
    let changes = [("weights", "\"full\""), ("lr", "0.002"), ("steps", "5"), ("every", "100")];
    check_stopped("sft", "tiny-sft.toml", &changes, "-INT");
}

#[test]
fn a_second_ctrl_c_stops_at_once() {
    let temp = tempfile::tempdir().unwrap();
    // A long step: both signals come within the first.
    let changes = [("max_tokens", "400"), ("steps", "4"), ("every", "1")];
    let path = settings("tiny.toml", temp.path(), &changes);
    let mut training = Training::start("grpo", &path);
    training.read_to("step 0 of 4");
    training.send("-INT");
    training.read_to("stopping after this step");
    let start = Instant::now();
    training.send("-INT");
    let (code, said) = training.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(!said.contains("go on with") && !said.contains("step 1/"), "{said}");
    assert!(start.elapsed() < PATIENCE);
    assert_eq!(checkpoints(temp.path()).steps().unwrap(), [0; 0]);
}

/// There is nothing to keep: no checkpoint of step 0 is left that a new run would trip over.
#[test]
fn a_signal_before_training_begins_ends_it_at_once() {
    let temp = tempfile::tempdir().unwrap();
    // It waits for the rest of the question, and the test for it to begin reading.
    let pipe = temp.path().join("question");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let question = format!("\"{}\"", pipe.display());
    let path = settings("tiny.toml", temp.path(), &[("question", &question)]);
    let training = Training::start("grpo", &path);
    let unfinished = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    training.send("-TERM");
    let (code, said) = training.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(!said.contains("step"), "{said}");
    assert_eq!(checkpoints(temp.path()).steps().unwrap(), [0; 0]);
    drop(unfinished);
}
