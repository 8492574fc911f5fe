//! Losses, gradients, metrics and advantages against TRL, see `golden/make.py`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use globe_train::loss::{
    Correction, GrpoConfig, Importance, LossType, SamplerMode, Scaling, Scope, SequenceTerms,
    advantages, cross_entropy, grpo_loss,
};
use serde_json::Value;

/// Both sides compute in f64 and sum in different orders.
const TOL: f64 = 1e-12;

/// TRL's `nanstd` and the label smoother of transformers have an f32 within.
const F32_TOL: f64 = 1e-7;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/loss.json")).unwrap()
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    serde_json::from_value(value.clone()).unwrap()
}

fn named<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn config(case: &Value, max_completion_tokens: usize) -> GrpoConfig {
    GrpoConfig {
        loss_type: named::<LossType>(&case["loss_type"]),
        importance: named::<Importance>(&case["importance"]),
        epsilon_low: named(&case["epsilon_low"]),
        epsilon_high: named(&case["epsilon_high"]),
        delta: named(&case["delta"]),
        beta: named(&case["beta"]),
        max_completion_tokens,
        sampler: Correction { mode: named::<SamplerMode>(&case["sampler"]), min: 0.0, max: 3.0 },
    }
}

#[test]
fn loss_gradient_and_metrics_match_trl() {
    let golden = golden();
    let inputs = &golden["inputs"];
    let of = |name: &str| rows(&inputs[name]);
    let (logp, old, reference) = (of("logp"), of("old"), of("reference"));
    let (sampling, entropy) = (of("sampling"), of("entropy"));
    let mask: Vec<Vec<bool>> =
        of("mask").iter().map(|row| row.iter().map(|&m| m == 1.0).collect()).collect();
    let advantage: Vec<f64> = named(&inputs["advantages"]);
    let micro_batches: f64 = named(&golden["micro_batches"]);
    let tokens = mask.iter().flatten().filter(|&&m| m).count() as f64;
    let scope = Scope {
        sequences: logp.len() as f64 * micro_batches,
        tokens: tokens * micro_batches,
        micro_batches,
    };

    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 72);
    let mut failures = Vec::new();
    for case in cases {
        let config = config(case, named(&golden["max_completion_tokens"]));
        let corrected = config.sampler.mode != SamplerMode::Off;
        let batch: Vec<_> = (0..logp.len())
            .map(|i| SequenceTerms {
                logp: &logp[i],
                old: case["old"].as_bool().unwrap().then_some(&old[i][..]),
                reference: Some(&reference[i]),
                sampling: corrected.then_some(&sampling[i][..]),
                entropy: Some(&entropy[i]),
                mask: &mask[i],
                advantage: advantage[i],
            })
            .collect();
        let got = grpo_loss(&config, &batch, scope).unwrap();
        let mut compare = |what: &str, got: f64, want: f64| {
            if (got - want).abs() > TOL * want.abs().max(1.0) {
                failures.push(format!("{config:?} {what}: {got} {want}"));
            }
        };
        compare("loss", got.loss, named(&case["loss"]));
        for (g, w) in got.dlogp.iter().flatten().zip(rows(&case["dlogp"]).iter().flatten()) {
            compare("dlogp", *g, *w);
        }
        let values = got.metrics.values(config.beta);
        for (name, want) in case["metrics"].as_object().unwrap() {
            // TRL computes counts of clipped ratios in f32.
            let (got, want) = (values[name], want.as_f64().unwrap());
            let coarse = name.starts_with("clip_ratio") && (got - want).abs() < 1e-6;
            compare(name, if coarse { want } else { got }, want);
        }
    }
    assert!(
        failures.is_empty(),
        "{} differ:\n{}",
        failures.len(),
        failures[..8.min(failures.len())].join("\n")
    );
}

#[test]
fn advantages_match_trl() {
    let golden = &golden()["advantages"];
    let rewards: Vec<Option<f64>> = named(&golden["rewards"]);
    for scaling in [Scaling::Group, Scaling::Batch, Scaling::None] {
        let name = serde_json::to_value(scaling).unwrap();
        let want: Vec<f64> = named(&golden[name.as_str().unwrap()]);
        let got = advantages(&rewards, 4, scaling).values;
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() < F32_TOL, "{scaling:?}: {got:?} {want:?}");
        }
    }
}

#[test]
fn cross_entropy_matches_transformers() {
    let golden = &golden()["cross_entropy"];
    let (logp, mean) = (rows(&golden["logp"]), rows(&golden["mean_logp"]));
    let mask: Vec<Vec<bool>> = named(&golden["mask"]);
    let slices: Vec<&[f64]> = logp.iter().map(Vec::as_slice).collect();
    let means: Vec<&[f64]> = mean.iter().map(Vec::as_slice).collect();
    let masks: Vec<&[bool]> = mask.iter().map(Vec::as_slice).collect();
    for (smoothing, want) in golden["losses"].as_object().unwrap() {
        let smoothing: f64 = smoothing.parse().unwrap();
        let got = cross_entropy(&slices, Some(&means), &masks, 4.0, smoothing);
        assert!((got.loss - want.as_f64().unwrap()).abs() < F32_TOL, "{smoothing}");
    }
}
