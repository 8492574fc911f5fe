//! `globe train` and `globe data` as their users see them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use globe_tests::golden_root;

use crate::cli::{Run, command, globe, run};

/// Longest wait for a checkpoint; a step takes a second or two.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

fn root() -> PathBuf {
    golden_root().join("../..").canonicalize().unwrap()
}

/// A shipped configuration with some lines replaced, and paths from the root of the repository.
pub(crate) fn settings(name: &str, folder: &Path, changes: &[(&str, &str)]) -> PathBuf {
    let mut text = fs::read_to_string(root().join("configs").join(name)).unwrap();
    let output = folder.join("run").display().to_string();
    let output = ("output", format!("\"{output}\""));
    let changes = changes.iter().map(|(key, value)| (*key, (*value).to_owned()));
    for (key, value) in changes.chain([output]) {
        let line = text.lines().find(|line| line.starts_with(&format!("{key} = ")));
        let line = line.unwrap_or_else(|| panic!("{name} has no {key}")).to_owned();
        text = text.replacen(&line, &format!("{key} = {value}"), 1);
    }
    let path = folder.join("settings.toml");
    fs::write(&path, text).unwrap();
    path
}

/// Few and short answers: what is tested is not what is learnt.
pub(crate) const SHORT: [(&str, &str); 5] = [
    ("group_size", "4"),
    ("max_tokens", "12"),
    ("micro_batch", "4"),
    ("steps", "4"),
    ("every", "2"),
];

pub(crate) fn train(method: &str, settings: &Path, more: &[&str]) -> Command {
    let mut line = vec!["train", method, "--config", settings.to_str().unwrap()];
    line.extend(more);
    let mut command = command(line);
    command.current_dir(root());
    command
}

/// Runs until the checkpoint is there, and no further: SIGKILL, so that no handler runs.
fn kill_at(checkpoint: &Path, mut training: Command) {
    let mut child = training.stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !checkpoint.exists() {
        assert!(start.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn adapter(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("run/adapter/adapter_model.safetensors")).unwrap()
}

#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = settings("tiny.toml", whole.path(), &SHORT);
    let done = run(train("grpo", &path, &[])).expect(0);
    assert!(done.stderr.contains("globe convert --from"), "{}", done.stderr);

    let path = settings("tiny.toml", killed.path(), &SHORT);
    let checkpoint = killed.path().join("run/checkpoints/step-00000002");
    kill_at(&checkpoint, train("grpo", &path, &[]));
    assert!(!killed.path().join("run/adapter").exists(), "it was killed before its end");
    let version = globe("--version").expect(0).stdout;
    let state = fs::read_to_string(checkpoint.join("state.json")).unwrap();
    assert!(state.contains(version.trim()), "it says what wrote it: {state}");

    let refused = run(train("grpo", &path, &[])).expect(2);
    assert!(refused.stderr.contains("--resume"), "{}", refused.stderr);
    let changed = settings("tiny.toml", killed.path(), &[&SHORT[..], &[("lr", "0.1")]].concat());
    let refused = run(train("grpo", &changed, &["--resume"])).expect(2);
    assert!(refused.stderr.contains("optimiser.lr"), "{}", refused.stderr);

    let path = settings("tiny.toml", killed.path(), &SHORT);
    run(train("grpo", &path, &["--resume"])).expect(0);
    assert!(adapter(whole.path()) == adapter(killed.path()));
    let rewards = |folder: &Path| -> Vec<String> {
        let lines = fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
        let steps = lines.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        steps
            .filter(|s| s["step"].is_number())
            .map(|s| format!("{} {}", s["loss"], s["reward"]))
            .collect()
    };
    assert_eq!(rewards(whole.path()), rewards(killed.path()));
    assert_eq!(rewards(whole.path()).len(), 4);
}

#[test]
fn known_answers_and_judgements_train_as_well() {
    let temp = tempfile::tempdir().unwrap();
    let short = [("steps", "2"), ("every", "2")];
    let path = settings("tiny-sft.toml", temp.path(), &short);
    run(train("sft", &path, &[])).expect(0);
    assert!(adapter(temp.path()).len() > 90_000);
    let plain = losses(temp.path());

    // Of a softmax over 435 tokens, the mean of -logp is at least ln 435.
    let temp = tempfile::tempdir().unwrap();
    let smoothed = [short[0], short[1], ("label_smoothing", "0.1")];
    run(train("sft", &settings("tiny-sft.toml", temp.path(), &smoothed), &[])).expect(0);
    let (got, least) = (losses(temp.path())[0], 0.9 * plain[0] + 0.1 * 435f64.ln());
    assert!(got > least, "{got} {least}");

    let temp = tempfile::tempdir().unwrap();
    let rows = fs::read_to_string(golden_root().join("training/weak.jsonl")).unwrap();
    let labelled = |(i, line): (usize, &str)| {
        let label = if i % 2 == 0 { "yes" } else { "no" };
        line.replacen('{', &format!("{{\"label\": \"{label}\", "), 1) + "\n"
    };
    let data = temp.path().join("labelled.jsonl");
    fs::write(&data, rows.lines().enumerate().map(labelled).collect::<String>()).unwrap();
    let path = settings("tiny-sft.toml", temp.path(), &short);
    let data = format!("path = \"{}\"", data.display());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("path = \"tests/golden/training/weak.jsonl\"", &data, 1))
        .unwrap();
    run(train("reward", &path, &[])).expect(0);
    assert!(adapter(temp.path()).len() > 90_000);
}

/// The losses that a run has written, step by step.
fn losses(folder: &Path) -> Vec<f64> {
    let lines = fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    let steps = lines.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    steps.filter(|s| s["step"].is_number()).filter_map(|s| s["loss"].as_f64()).collect()
}

#[test]
fn all_weights_learn_resume_to_the_same_bits_and_become_a_model() {
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let changes = [
        ("weights", "\"full\""),
        ("lr", "0.002"),
        ("prompts", "2"),
        ("steps", "6"),
        ("every", "3"),
    ];
    let path = settings("tiny-sft.toml", whole.path(), &changes);
    let done = run(train("sft", &path, &[])).expect(0);
    assert!(done.stderr.contains("model written to"), "{}", done.stderr);
    let learnt = losses(whole.path());
    assert!(learnt.len() == 6 && learnt[5] < 0.3 * learnt[0], "{learnt:?}");

    let path = settings("tiny-sft.toml", killed.path(), &changes);
    let checkpoint = killed.path().join("run/checkpoints/step-00000003");
    kill_at(&checkpoint, train("sft", &path, &[]));
    run(train("sft", &path, &["--resume"])).expect(0);
    for file in ["parameters.safetensors", "optimiser.safetensors"] {
        let read = |folder: &Path| {
            fs::read(folder.join("run/checkpoints/step-00000006").join(file)).unwrap()
        };
        assert!(read(whole.path()) == read(killed.path()), "{file}");
    }
    assert_eq!(losses(killed.path())[3..], learnt[3..]);

    // The finished model has the tensors of the base, with other values, and answers.
    let model = whole.path().join("run/model");
    let line = format!("inspect {} --json", model.display());
    let base = run(command("inspect tied --json".split_whitespace())).expect(0).stdout;
    let made = run(command(line.split_whitespace())).expect(0).stdout;
    let count = |json: &str| -> serde_json::Value {
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert!(json["n_tensors"].is_number(), "{json}");
        json["dtypes"].clone()
    };
    assert_eq!(count(&made), count(&base));
    let file = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(file(&model) == file(&killed.path().join("run/model")));
    assert!(file(&model) != file(&golden_root().join("tied")));
}

/// `config.json` of Qwen2.5-VL-7B, as far as a plan needs it.
const SEVEN: &str = r#"{
    "model_type": "qwen2_5_vl", "vocab_size": 152064, "hidden_size": 3584,
    "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "tie_word_embeddings": false, "image_token_id": 151655,
    "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 128000,
    "rope_scaling": { "type": "mrope", "mrope_section": [16, 24, 24] },
    "vision_config": {
        "depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420,
        "out_hidden_size": 3584, "fullatt_block_indexes": [7, 15, 23, 31]
    }
}"#;

#[test]
fn the_recipes_plan_without_weights() {
    for (name, billions) in [("globe-7b-qlora.toml", "7.6"), ("globe-7b-full.toml", "7.6")] {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("config.json"), SEVEN).unwrap();
        let model = format!("\"{}\"", temp.path().display());
        // The first `path` is the model's; the data are not at hand, and the plan says so.
        let path = settings(name, temp.path(), &[("path", &model)]);
        let plan = run(train("grpo", &path, &["--dry-run"])).expect(0).stdout;
        assert!(plan.contains(&format!("({billions}")), "{plan}");
        assert!(plan.contains("NOT READY") && plan.contains("MP16-Reason-Train"), "{plan}");
        assert!(plan.contains("6 photos x 16 answers of at most 1024 tokens"), "{plan}");
        let peak = plan.lines().find(|line| line.contains("at the peak")).unwrap();
        let gib: f64 = peak.split_whitespace().next().unwrap().parse().unwrap();
        if name.contains("qlora") {
            assert!(gib < 24.0, "7B in 4 bits is to fit a card of 24 GB: {plan}");
        } else {
            // 16 bytes per weight of the language model, 2 for the copy, 4 for the frozen tower.
            assert!((130.0..160.0).contains(&gib), "{plan}");
            assert!(plan.contains("15.45 GiB copy before training"), "{plan}");
        }
    }
}

#[test]
fn the_command_line_names_another_device() {
    let temp = tempfile::tempdir().unwrap();
    let path = settings("tiny.toml", temp.path(), &[]);
    let plan = |more: &[&str]| run(train("grpo", &path, more)).expect(0).stdout;
    assert!(plan(&["--dry-run", "--device", "cpu"]).contains("on cpu (reference kernels)"));
    assert!(!plan(&["--dry-run", "--device", "software"]).contains("reference kernels"));
    let refused = run(train("grpo", &path, &["--device", "tpu"])).expect(2);
    assert!(refused.stderr.contains("auto, gpu, software, cpu"), "{}", refused.stderr);
}

#[test]
fn bad_settings_say_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let refused = |changes: &[(&str, &str)], more: &[&str]| -> Run {
        run(train("grpo", &settings("tiny.toml", temp.path(), changes), more)).expect(2)
    };
    for (changes, more, expected) in [
        (&[("weights", "\"qlora\"")][..], &[][..], "globe convert"),
        (&[("weights", "\"full\"")], &[], "merge it first"),
        (&[("train_vision", "true")], &[], "set it to false"),
        (&[("device", "\"tpu\"")], &[], "model.device: unknown device `tpu`"),
        (&[("question", "\"nowhere.txt\"")], &[], "model.question"),
        (&[("adapter", "\"tests/golden/training/untied\"")], &[], "another base"),
        (&[("group_size", "1")], &[], "group_size"),
        (&[("lr", "\"fast\"")], &[], "expected f64"),
        (&[], &["--resume"], "nothing to resume"),
    ] {
        let run = refused(changes, more);
        assert!(run.stderr.contains(expected), "{changes:?}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
    let path = temp.path().join("typo.toml");
    fs::write(&path, "[optimiser]\nlearning_rate = 1\n").unwrap();
    let run = run(train("grpo", &path, &[])).expect(2);
    assert!(run.stderr.contains("learning_rate"), "{}", run.stderr);
}

#[test]
fn data_are_checked_before_they_stop_a_run() {
    let data = |line: &str| {
        let mut command = command(line.split_whitespace());
        command.current_dir(root());
        run(command)
    };
    let images = "--images tests/golden/images";
    let clean = data(&format!("data check tests/golden/training/weak.jsonl {images}")).expect(0);
    assert!(clean.stdout.contains("4 rows"), "{}", clean.stdout);
    let faulty = data("data check tests/golden/training/weak.jsonl").expect(4);
    assert!(faulty.stdout.contains("plain_56x84.png"), "{}", faulty.stdout);
    let absent = data("data check nowhere.jsonl").expect(2);
    assert!(absent.stderr.contains("nowhere.jsonl"), "{}", absent.stderr);
}
