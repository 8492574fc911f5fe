//! AdamW, clipping and schedules against torch and transformers, see `golden/make.py`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use globe_train::optimiser::{AdamW, AdamWConfig, Decay, Schedule, clip_by_norm, global_norm};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/optimiser.json")).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Four f32 steps on both sides; torch sums the norm in f32 and may fuse multiplications and additions.
#[track_caller]
fn assert_close(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= 1e-8 + 1e-6 * w.abs(), "{what} {i}: {g} {w}");
    }
}

#[test]
fn adamw_and_clipping_match_torch() {
    let golden = golden();
    let mut values = floats(&golden["start"]);
    let mut adam = AdamW::new(AdamWConfig::default());
    for step in golden["steps"].as_array().unwrap() {
        let mut gradient = floats(&step["gradient"]);
        let norm = global_norm([&gradient[..]]);
        let want = step["norm"].as_f64().unwrap();
        assert!((norm - want).abs() < 1e-6 * want, "{norm} {want}");
        let factor = clip_by_norm(norm, 1.0);
        gradient.iter_mut().for_each(|g| *g *= factor);
        adam.begin_step();
        adam.update("w", &mut values, &gradient, 1e-2).unwrap();
        assert_close("parameter", &values, &floats(&step["parameter"]));
        let saved = adam.save();
        assert_close("mean", saved.values("w.exp_avg").unwrap(), &floats(&step["exp_avg"]));
        let mean_sq = saved.values("w.exp_avg_sq").unwrap();
        assert_close("mean of squares", mean_sq, &floats(&step["exp_avg_sq"]));
    }
    assert_eq!(adam.steps(), 4);
}

#[test]
fn saved_state_goes_on_exactly() {
    let gradient = [0.5, -2.0];
    let mut one = AdamW::new(AdamWConfig::default());
    let mut values = [1.0, 2.0];
    for _ in 0..3 {
        one.begin_step();
        one.update("w", &mut values, &gradient, 0.1).unwrap();
    }
    let bytes = one.save().to_bytes(&Default::default()).unwrap();
    let mut two = AdamW::new(AdamWConfig::default());
    two.load(&globe_train::Tensors::from_bytes(bytes).unwrap()).unwrap();
    assert_eq!(one, two);
    let error = two.update("w", &mut [1.0], &[1.0], 0.1).unwrap_err();
    assert!(error.to_string().contains("`w`: expected shape [1], got [2]"), "{error}");
    assert!(two.load(&globe_train::Tensors::default()).is_err());
}

#[test]
fn schedules_match_transformers() {
    for (name, decay) in [("cosine", Decay::Cosine), ("constant", Decay::Constant)] {
        let schedule = Schedule { peak: 1.0, warmup_steps: 3, total_steps: 20, decay };
        let golden = golden();
        let want = golden["schedules"][name].as_array().unwrap();
        // Beyond the end, transformers lets the cosine rise again.
        for (step, want) in want.iter().enumerate().take(21) {
            let got = schedule.lr(step as u64);
            assert!((got - want.as_f64().unwrap()).abs() < 1e-12, "{name} {step}: {got} {want}");
        }
    }
    assert_eq!(clip_by_norm(1e9, 0.0), 1.0);
    assert!(global_norm([&[f32::NAN][..]]).is_nan());
}
