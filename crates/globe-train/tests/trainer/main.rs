//! The training loop with a policy that is a table: learning, exactness, resuming, failures.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod failures;
mod learning;
mod resume;
mod supervised;
mod tabular;
mod watching;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, LazyLock, atomic::AtomicBool},
};

use globe_geo::Gazetteer;
use globe_train::{
    config::Config,
    data::{Dataset, Stream, StreamOptions},
    loss::LossType,
    rewards::{Combination, Format, Geo, GeoForm, NameMatch, RewardSet},
    trainer::{TrainEvent, Trainer},
};
use tabular::Tabular;

const PLACES: [(&str, &str); 3] = [("France", "Paris"), ("Japan", "Kyoto"), ("Kenya", "Nairobi")];

/// Nine rows whose ids end with the number of their place.
fn write_data(folder: &Path) {
    let image = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/images/small_40x30.png")
        .canonicalize()
        .unwrap();
    let row = |i: usize| {
        let (country, city) = PLACES[i % 3];
        let response = format!(
            "<think>I can see palm trees.</think>\n<answer>\ncountry: {country}\ncity: {city}\n</answer>"
        );
        serde_json::json!({
            "id": format!("photo-{}", i % 3), "image": image, "country": country, "city": city,
            "response": response, "label": if i.is_multiple_of(3) { "yes" } else { "no" },
        })
        .to_string()
            + "\n"
    };
    fs::write(folder.join("rows.jsonl"), (0..9).map(row).collect::<String>()).unwrap();
}

/// Three photos of six answers per step.
fn config(folder: &Path) -> Config {
    let mut config = Config::default();
    config.run.output = folder.join("run").display().to_string();
    config.data.path = folder.join("rows.jsonl").display().to_string();
    config.rollout.prompts = 3;
    config.rollout.group_size = 8;
    config.rollout.max_tokens = 10;
    config.loss.loss_type = LossType::Dapo;
    config.optimiser.lr = 0.1;
    config.optimiser.warmup = 0.0;
    config.training.steps = 6;
    config.training.micro_batch = 4;
    config.checkpoint.every = 3;
    config
}

fn stream(config: &Config) -> Stream {
    let data = Dataset::open(Path::new(&config.data.path), None).unwrap();
    let options = StreamOptions { seed: config.run.seed, ..StreamOptions::default() };
    Stream::new(data, options)
}

/// Letters, since the gazetteer is slow in a debug build and has its own tests.
fn rewards() -> RewardSet {
    let form = GeoForm::Names { alpha: 0.8, names: NameMatch::Letters };
    static GAZETTEER: LazyLock<Arc<Gazetteer>> =
        LazyLock::new(|| Arc::new(Gazetteer::full().unwrap()));
    let geo = Geo::new(GAZETTEER.clone(), form);
    RewardSet::new(Combination::Additive).with(geo, 1.0).with(Format, 1.0)
}

fn trainer(config: &Config) -> Trainer<Tabular> {
    Trainer::new(config.clone(), Tabular::new(3), stream(config), rewards())
}

type Steps = Vec<BTreeMap<String, f64>>;

/// Runs to the end and gives the numbers of every step, without times.
fn run(trainer: &mut Trainer<Tabular>) -> globe_train::Result<Steps> {
    let mut steps = Vec::new();
    let mut watch = |event: &TrainEvent<'_>| {
        if let TrainEvent::Step(stats) = event {
            let mut values = stats.values.clone();
            values.retain(|name, _| !name.starts_with("time/"));
            steps.push(values);
        }
        Ok(())
    };
    trainer.run(&mut watch, &AtomicBool::new(false))?;
    Ok(steps)
}
