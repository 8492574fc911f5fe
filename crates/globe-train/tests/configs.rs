//! The shipped configurations: they read, they are documented in full, and they say what they claim.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{fs, path::PathBuf};

use globe_train::{
    config::{Config, Weights},
    data::{Dataset, Stream, StreamOptions},
    loss::LossType,
    optimiser::Decay,
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
    config.model.path = match weights {
        Weights::Qlora => "models/Qwen2.5-VL-7B-Instruct-q4".into(),
        _ => "models/Qwen2.5-VL-7B-Instruct".into(),
    };
    config.model.weights = weights;
    // Four answers behind one prompt share it.
    config.training.micro_batch = 4;
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

/// GRPO from the weak start that [`tiny_sft`] makes.
fn tiny() -> Config {
    let mut config = Config::default();
    config.run.output = "runs/tiny".into();
    config.model.path = "tests/golden/tied".into();
    config.model.weights = Weights::Lora;
    config.model.adapter = "tests/golden/training/weak".into();
    config.model.question = "configs/tiny-question.txt".into();
    config.model.max_pixels = 9408;
    config.lora.rank = 8;
    config.lora.alpha = 16.0;
    config.data.path = "tests/golden/training/places.jsonl".into();
    config.data.images = "tests/golden/images".into();
    config.rollout.prompts = 2;
    config.rollout.group_size = 16;
    config.rollout.max_tokens = 64;
    config.rewards.visual = 0.0;
    config.optimiser.lr = 5e-4;
    config.optimiser.schedule = Decay::Constant;
    config.optimiser.weight_decay = 0.0;
    config.training.steps = 24;
    config.training.micro_batch = 32;
    config.checkpoint.every = 8;
    config.watch.samples_every = 8;
    config
}

fn tiny_sft() -> Config {
    let mut config = tiny();
    config.run.output = "runs/tiny-sft".into();
    config.model.adapter = String::new();
    config.data.path = "tests/golden/training/weak.jsonl".into();
    config.rollout.prompts = 4;
    config.optimiser.lr = 1e-2;
    config.optimiser.schedule = Decay::Cosine;
    config.training.steps = 40;
    config.checkpoint.every = 20;
    config
}

const GLOBE_HEADER: &str =
    "# GLOBE's recipe for Qwen2.5-VL-7B, arXiv 2506.14674: group of 16, 96 answers per step,
# beta 0.001, cosine from 1e-6, frozen vision tower, rewards of the two-reward script.
# Differs on purpose: top_p 1 and top_k 0, since a truncated sampler contradicts the
# log-probabilities of the loss; visual clues by F1, since recall alone pays for listing.
";
const QLORA_HEADER: &str =
    "# With an adapter the learning rate is 1e-5: an adapter moves the weights less per step. The model
# comes from `globe convert --from models/Qwen2.5-VL-7B-Instruct --out models/Qwen2.5-VL-7B-Instruct-q4 --bits 4`.
";
const TINY_HEADER: &str =
    "# A tiny model that answers in the right form and guesses between two places: the reward rises
# from 1.5 to 2 within some twenty steps. `configs/tiny-sft.toml` made what it starts from.
";
const TINY_SFT_HEADER: &str =
    "# Teaches a random tiny model the form of an answer, and both places for both photos: the weak
# start of `configs/tiny.toml`. tests/golden/training/weak is its result.
";

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
        ("tiny-sft.toml", TINY_SFT_HEADER.to_owned(), tiny_sft()),
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
    for config in [tiny(), tiny_sft()] {
        let data =
            Dataset::open(&root.join(config.data.path), Some(&root.join(config.data.images)));
        let mut stream = Stream::new(data.unwrap(), StreamOptions::default());
        for _ in 0..4 {
            stream.next_sample().unwrap();
        }
        assert_eq!(stream.bad_images().1, 0);
    }
}
