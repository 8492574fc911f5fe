//! It learns, and how the work is cut up does not matter.

use globe_train::{
    config::{Config, OldLogps},
    loss::{Importance, LossType, SamplerMode},
    optimiser::Decay,
};

use super::{config, run, tabular::mean, trainer, write_data};

/// From a weak start the reward rises, for several seeds and every loss.
#[test]
fn grpo_raises_the_reward_from_a_weak_start() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let mut base = config(temp.path());
    base.training.steps = 150;
    base.rollout.group_size = 16;
    base.optimiser.lr = 0.2;
    base.optimiser.schedule = Decay::Constant;
    base.checkpoint.every = 150;
    base.checkpoint.host_copy_every = 0;
    base.watch.samples_every = 0;
    for (loss_type, seed) in [
        (LossType::Dapo, 1),
        (LossType::Dapo, 2),
        (LossType::Dapo, 3),
        (LossType::Grpo, 1),
        (LossType::Bnpo, 2),
        (LossType::DrGrpo, 3),
    ] {
        let mut config = base.clone();
        config.run.seed = seed;
        config.loss.loss_type = loss_type;
        let steps = run(&mut trainer(&config)).unwrap();
        let (before, after) = (mean(&steps[..4], "reward"), mean(&steps[140..], "reward"));
        assert!(before < 0.9, "{loss_type:?} {seed}: the start is weak, {before}");
        assert!(after > 1.7, "{loss_type:?} {seed}: {before} -> {after} of 2");
        assert!(mean(&steps[140..], "entropy") < mean(&steps[..4], "entropy"));
    }
}

#[test]
fn the_reference_holds_the_policy_back() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let moved = |beta: f64| {
        let mut config = config(temp.path());
        config.training.steps = 15;
        config.loss.beta = beta;
        let mut trainer = trainer(&config);
        let start = trainer.policy().table().to_vec();
        let steps = run(&mut trainer).unwrap();
        if beta > 0.0 {
            assert_eq!(steps[0]["kl"], 0.0, "before the first step both are the same");
            assert!(steps[14]["kl"] > 0.0);
        }
        let end = trainer.policy().table().to_vec();
        start.iter().zip(end).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
    };
    let (free, held) = (moved(0.0), moved(2.0));
    assert!(held < 0.7 * free, "{held} {free}");
}

/// Table after two steps.
fn table(config: &Config) -> Vec<f32> {
    let mut config = config.clone();
    config.training.steps = 2;
    let mut trainer = trainer(&config);
    run(&mut trainer).unwrap();
    let policy = trainer.policy();
    assert!(policy.largest_batch <= config.training.micro_batch);
    policy.table().to_vec()
}

#[test]
fn accumulation_of_any_size_gives_the_same_weights() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let mut config = config(temp.path());
    config.rollout.prompts = 1;
    config.loss.mask_truncated = true;
    for loss_type in [LossType::Grpo, LossType::DrGrpo, LossType::Dapo] {
        for importance in [Importance::Token, Importance::Sequence] {
            config.loss.loss_type = loss_type;
            config.loss.importance = importance;
            config.loss.beta = 0.1;
            config.training.micro_batch = 8;
            let whole = table(&config);
            for micro_batch in [1, 2, 4, 3] {
                config.training.micro_batch = micro_batch;
                assert!(table(&config) == whole, "{loss_type:?} {importance:?} {micro_batch}");
            }
        }
    }
}

#[test]
fn passes_are_made_only_when_needed() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let passes = |change: &dyn Fn(&mut Config)| {
        let mut config = config(temp.path());
        config.training.steps = 4;
        change(&mut config);
        let mut trainer = trainer(&config);
        let steps = run(&mut trainer).unwrap();
        let policy = trainer.policy();
        (policy.trained_passes, policy.reference_passes, steps)
    };
    let (trained, reference, steps) = passes(&|_| {});
    assert_eq!((trained, reference), (0, 0));
    // On-policy: what the trainer computes is what the sampler computed, and the ratio is 1.
    assert!(steps.iter().all(|s| s["sampling/sampling_logp_difference/max"] < 1e-6));
    assert!(steps.iter().all(|s| s["clip_ratio/region_mean"] == 0.0));

    let twice = |c: &mut Config| {
        c.training.iterations = 2;
        c.loss.beta = 0.01;
    };
    let (trained, reference, steps) = passes(&twice);
    // Two generations of 24 answers, four at once, each pass once.
    assert_eq!((trained, reference), (12, 12));
    assert!(steps[1]["sampling/sampling_logp_difference/max"] < 1e-6, "old is that of generation");
    assert!(steps[0].contains_key("reward") && !steps[1].contains_key("reward"));
    let (trained, ..) = passes(&|c| {
        twice(c);
        c.loss.old_logps = OldLogps::Sampling;
        c.loss.sampler_correction = SamplerMode::TokenTruncate;
    });
    assert_eq!(trained, 0);
}

#[test]
fn groups_without_differences_can_be_replaced() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let share = |dynamic: bool| {
        let mut config = config(temp.path());
        config.rollout.group_size = 2;
        config.rollout.dynamic_sampling = dynamic;
        config.rollout.dynamic_rounds = 8;
        config.training.steps = 12;
        let steps = run(&mut trainer(&config)).unwrap();
        assert!(steps.iter().all(|s| s["rollout/rounds"] >= 1.0));
        (mean(&steps, "frac_reward_zero_std"), mean(&steps, "rollout/rounds"))
    };
    let ((plain, one), (replaced, more)) = (share(false), share(true));
    assert!(one == 1.0 && more > 1.0);
    assert!(plain > 0.2 && replaced < 0.5 * plain, "{plain} {replaced}");
}
