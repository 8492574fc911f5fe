//! The shipped configurations: they read, they are documented in full, and they say what they claim.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{fs, path::PathBuf};

use globe_train::{
    config::{Config, Weights},
    data::{Dataset, Stream, StreamOptions},
    loss::LossType,
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

/// GLOBE's scripts with sampling that fits the log-probabilities, see the header of the files.
fn globe(weights: Weights, lr: f64) -> Config {
    let mut config = Config::default();
    config.run.output = match weights {
        Weights::Full => "runs/globe-7b-full".into(),
        _ => "runs/globe-7b-qlora".into(),
    };
    config.model.path = "models/Qwen2.5-VL-7B-Instruct".into();
    config.model.weights = weights;
    config.data.path = "data/MP16-Reason-Train".into();
    config.rollout.prompts = 6;
    config.rollout.group_size = 16;
    config.rollout.max_tokens = 1024;
    config.loss.loss_type = LossType::Grpo;
    config.loss.beta = 0.001;
    config.optimiser.lr = lr;
    // 28 GB of weights are no copy to make after every step.
    config.checkpoint.host_copy_every = u64::from(weights != Weights::Full);
    // One pass over 33,721 photos, six at a time.
    config.training.steps = 5620;
    config
}

fn tiny() -> Config {
    let mut config = Config::default();
    config.run.output = "runs/tiny".into();
    config.model.path = "tests/golden/tied".into();
    config.model.weights = Weights::Lora;
    config.model.max_pixels = 9408;
    config.lora.rank = 4;
    config.lora.alpha = 8.0;
    config.data.path = "crates/globe-train/tests/golden/tiny.jsonl".into();
    config.data.images = "tests/golden/images".into();
    config.rollout.prompts = 2;
    config.rollout.group_size = 4;
    config.rollout.max_tokens = 16;
    config.rewards.visual = 0.0;
    config.optimiser.lr = 1e-2;
    config.training.steps = 20;
    config.training.micro_batch = 4;
    config.checkpoint.every = 10;
    config
}

const GLOBE_HEADER: &str =
    "# GLOBE's recipe for Qwen2.5-VL-7B, arXiv 2506.14674: group of 16, 96 answers per step,
# beta 0.001, cosine from 1e-6, frozen vision tower, rewards of the two-reward script.
# Differs on purpose: top_p 1 and top_k 0, since a truncated sampler contradicts the
# log-probabilities of the loss; visual clues by F1, since recall alone pays for listing.
";
const QLORA_HEADER: &str =
    "# With an adapter the learning rate is 1e-5: an adapter moves the weights less per step.\n";
const TINY_HEADER: &str =
    "# A random tiny model and a few rows: shows within minutes that everything runs.\n";

#[test]
fn shipped_files_are_what_the_code_documents() {
    let files = [
        (
            "globe-7b-qlora.toml",
            format!("{GLOBE_HEADER}{QLORA_HEADER}"),
            globe(Weights::Qlora, 1e-5),
        ),
        ("globe-7b-full.toml", GLOBE_HEADER.to_owned(), globe(Weights::Full, 1e-6)),
        ("tiny.toml", TINY_HEADER.to_owned(), tiny()),
    ];
    for (name, header, config) in files {
        let path = folder().join(name);
        let want = format!("{header}\n{}", config.documented());
        if std::env::var_os("GLOBE_BLESS").is_some() {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&path, &want).unwrap();
        }
        assert_eq!(Config::open(&path).unwrap(), config, "{name}");
        let got = fs::read_to_string(&path).unwrap();
        assert!(got == want, "{name} is stale: run this test with GLOBE_BLESS=1");
    }
}

#[test]
fn the_tiny_data_exist() {
    let root = folder().join("..");
    let config = tiny();
    let data = Dataset::open(&root.join(config.data.path), Some(&root.join(config.data.images)));
    let mut stream = Stream::new(data.unwrap(), StreamOptions::default());
    for _ in 0..4 {
        stream.next_sample().unwrap();
    }
    assert_eq!(stream.bad_images().1, 0);
}
