//! GRPO with GLOBE's rewards on the device, from a weak start: it learns, and resumes exactly.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use globe_policy::{ModelJudge, ModelPolicy};
use globe_tests::golden_root;
use globe_tests::tiny::{config, engine, policy, trainer};
use globe_train::checkpoint::Adapter;
use globe_train::config::Weights;
use globe_train::rewards::{Judge, JudgeRequest, Locatability};
use globe_train::trainer::{Ending, TrainEvent, Trainer};
use globe_train::{Policy, Prompt, Sequence, Side};

type Steps = Vec<BTreeMap<String, f64>>;

/// Runs to the end; the numbers of every step, without times.
fn run(trainer: &mut Trainer<ModelPolicy>) -> Steps {
    let mut steps = Vec::new();
    let mut watch = |event: &TrainEvent<'_>| {
        if let TrainEvent::Step(stats) = event {
            let mut values = stats.values.clone();
            values.retain(|name, _| !name.starts_with("time/") && !name.starts_with("memory/"));
            steps.push(values);
        }
        Ok(())
    };
    let ending = trainer.run(&mut watch, &AtomicBool::new(false)).unwrap();
    assert_eq!(ending, Ending::Complete);
    steps
}

fn mean(steps: &[BTreeMap<String, f64>], name: &str) -> f64 {
    steps.iter().map(|step| step[name]).sum::<f64>() / steps.len() as f64
}

/// Keeps a curve where a person finds it: `tmp/` in the target folder.
fn keep(seed: u64, rewards: &[f64]) {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("grpo-reward-seed-{seed}.csv"));
    let rows = rewards.iter().enumerate().map(|(i, reward)| format!("{},{reward}\n", i + 1));
    std::fs::write(file, "step,reward\n".to_owned() + &rows.collect::<String>()).unwrap();
}

/// Two places for two photos: guessing earns 1.5 of 2, half of the places and all of the form.
#[test]
fn grpo_raises_the_reward_from_a_weak_start() {
    for seed in [0, 1] {
        let temp = tempfile::tempdir().unwrap();
        let mut config = config(temp.path());
        config.run.seed = seed;
        config.training.steps = 14;
        config.checkpoint.every = 100;
        config.checkpoint.host_copy_every = 0;
        let steps = run(&mut trainer(&config));
        let (before, after) = (mean(&steps[..2], "reward"), mean(&steps[11..], "reward"));
        let curve: Vec<f64> = steps.iter().map(|step| step["reward"]).collect();
        keep(seed, &curve);
        assert!(before < 1.7, "seed {seed}: the start is weak: {curve:?}");
        assert!(after > 1.85, "seed {seed}: {before} -> {after}: {curve:?}");
        // On-policy: sampler and training pass say the same about every token.
        // Steps whose answers all earn the same need no training pass and say nothing.
        let off = |step: &BTreeMap<String, f64>| {
            step.get("sampling/sampling_logp_difference/max").copied()
        };
        let off: Vec<f64> = steps.iter().filter_map(off).collect();
        assert!(off.len() >= 4 && off.iter().all(|off| *off < 1e-3), "seed {seed}: {off:?}");
        assert!(steps.iter().all(|step| step["clip_ratio/region_mean"] == 0.0));
    }
}

/// Four steps are two steps, a new process, and two more: every number and every bit.
#[test]
fn a_resumed_run_is_the_run_that_never_stopped() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(&temp.path().join("whole"));
    config.rollout.group_size = 4;
    config.rollout.max_tokens = 24;
    config.training.steps = 4;
    config.training.micro_batch = 3;
    config.checkpoint.every = 2;
    config.loss.beta = 0.02;
    let mut whole = trainer(&config);
    let expected = run(&mut whole);
    let weights = whole.policy().save().unwrap();
    drop(whole);

    // The checkpoint of step 2 is what a killed run leaves behind.
    let store = PathBuf::from(&config.run.output).join("checkpoints");
    let loaded = globe_train::checkpoint::Store::new(store, 0).load(2).unwrap();
    config.run.output = temp.path().join("resumed").display().to_string();
    let mut resumed = trainer(&config);
    resumed.resume(&loaded, false).unwrap();
    assert_eq!(run(&mut resumed), expected[2..]);
    assert!(resumed.policy().save().unwrap() == weights);
}

/// The weak start as a model of its own, all of whose weights are then trained, the tower's as well,
/// against a copy of it.
#[test]
fn a_resumed_run_of_all_weights_is_the_run_that_never_stopped() {
    let temp = tempfile::tempdir().unwrap();
    let start = temp.path().join("start");
    let line = format!("export --from tied --adapter training/weak --out {} -q", start.display());
    crate::cli::globe(&line).expect(0);
    let mut config = config(&temp.path().join("whole"));
    config.model.path = start.display().to_string();
    config.model.adapter = String::new();
    config.model.weights = Weights::Full;
    config.model.train_vision = true;
    config.rollout.group_size = 6;
    config.training.steps = 3;
    config.checkpoint.every = 2;
    config.checkpoint.host_copy_every = 0;
    config.optimiser.lr = 1e-4;
    config.loss.beta = 0.02;
    let mut whole = trainer(&config);
    let expected = run(&mut whole);
    let weights = whole.policy().save().unwrap();
    drop(whole);
    let kl: Vec<f64> = expected.iter().map(|step| step["kl"]).collect();
    assert!(kl[0] < 1e-6 && kl[2] > 1e-5, "{kl:?}");
    assert!(weights.parameters.names().any(|name| name.starts_with("visual.")));

    let store = PathBuf::from(&config.run.output).join("checkpoints");
    let loaded = globe_train::checkpoint::Store::new(store, 0).load(2).unwrap();
    config.run.output = temp.path().join("resumed").display().to_string();
    let mut resumed = trainer(&config);
    resumed.resume(&loaded, false).unwrap();
    assert_eq!(run(&mut resumed), expected[2..]);
    assert!(resumed.policy().save().unwrap() == weights);
}

#[test]
fn a_judge_shares_the_engine_and_leaves_the_policy_as_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let config = config(temp.path());
    let engine = engine(&config);
    let mut policy = policy(&config, engine.clone());
    let image = std::fs::read(Path::new(&config.data.images).join("plain_56x84.png")).unwrap();
    let prompt = Prompt { id: "photo".into(), image: image.as_slice().into(), question: None };
    let ids = policy.encode("country: France").unwrap();
    let sequence = [Sequence { prompt: &prompt, ids: &ids }];
    let before = policy.logps(&sequence, 1.0, Side::Trained).unwrap();

    let adapter = Adapter::open(&golden_root().join("training/tied")).unwrap();
    let mut judge = ModelJudge::new(engine, adapter, Some(9408)).unwrap();
    let question = Locatability::<ModelJudge>::question("I can see palm trees.");
    let requests = [JudgeRequest { image: &image, question: &question }; 2];
    let answers = judge.judge(&requests).unwrap();
    assert_eq!(answers[0], answers[1]);
    assert_eq!(policy.logps(&sequence, 1.0, Side::Trained).unwrap(), before);
    assert_ne!(policy.logps(&sequence, 1.0, Side::Reference).unwrap(), before);

    let other = Adapter::open(&golden_root().join("training/untied")).unwrap();
    let engine = self::engine(&config);
    let error = ModelJudge::new(engine, other, None).err().unwrap().to_string();
    assert!(error.contains("another base"), "{error}");
}
