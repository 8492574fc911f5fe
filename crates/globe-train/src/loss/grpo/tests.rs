use super::*;

/// The table in the reference notes: two answers, one masked token.
struct Case {
    logp: [[f64; 3]; 2],
    old: [[f64; 3]; 2],
    reference: [[f64; 3]; 2],
    mask: [[bool; 3]; 2],
    advantages: [f64; 2],
}

fn case() -> Case {
    let logp = [[-1.0, -2.0, -0.4], [-0.5, -0.25, -9.0]];
    Case {
        logp,
        old: [[-1.3, -2.05, -0.1], [-0.2, -0.3, -9.0]],
        reference: logp.map(|row| row.map(|x| x + 0.1)),
        mask: [[true; 3], [true, true, false]],
        advantages: [0.8, -0.7],
    }
}

impl Case {
    fn rounded_to_f32(mut self) -> Self {
        for rows in [&mut self.logp, &mut self.old, &mut self.reference] {
            rows.iter_mut().flatten().for_each(|x| *x = f64::from(*x as f32));
        }
        self
    }

    fn loss(&self, config: &GrpoConfig) -> GrpoLoss {
        let batch: Vec<_> = (0..2)
            .map(|i| SequenceTerms {
                logp: &self.logp[i],
                old: Some(&self.old[i]),
                reference: Some(&self.reference[i]),
                sampling: None,
                entropy: None,
                mask: &self.mask[i],
                advantage: self.advantages[i],
            })
            .collect();
        // Two answers of two micro-batches; the table's dapo counts the tokens of one.
        let scope = Scope { sequences: 4.0, tokens: 5.0, micro_batches: 2.0 };
        grpo_loss(config, &batch, scope).unwrap()
    }
}

fn config(loss_type: LossType, importance: Importance) -> GrpoConfig {
    GrpoConfig { loss_type, importance, beta: 0.04, max_completion_tokens: 8, ..Default::default() }
}

const TABLE: [(LossType, f64, f64, [f64; 3]); 4] = [
    (LossType::Grpo, -0.037382981843, -0.048820889763, [-0.000351, -0.070435, -0.049738]),
    (LossType::Bnpo, -0.109674750257, -0.120380534569, [-0.000421, -0.084522, -0.059686]),
    (LossType::DrGrpo, -0.034273359455, -0.037618917053, [-0.000131, -0.026413, -0.018652]),
    (LossType::Dapo, -0.219349500514, -0.240761069139, [-0.000841, -0.169045, -0.119372]),
];

#[test]
fn losses_match_the_golden_table() {
    for (loss_type, token, sequence, gradient) in TABLE {
        for (importance, want) in [(Importance::Token, token), (Importance::Sequence, sequence)] {
            let config = config(loss_type, importance);
            let got = case().loss(&config).loss;
            assert!((got - want).abs() < 1e-9, "{loss_type:?} {importance:?}: {got} {want}");
            let got = case().rounded_to_f32().loss(&config).loss as f32;
            assert!((got - want as f32).abs() < 1e-5, "f32 {loss_type:?}: {got} {want}");
        }
        let got = case().loss(&config(loss_type, Importance::Token)).dlogp;
        for (g, w) in got[0].iter().zip(gradient) {
            assert!((g - w).abs() < 1e-6, "{loss_type:?}: {g} {w}");
        }
        assert_eq!(got[1][2], 0.0, "a masked token has no gradient");
    }
}

#[test]
fn gradients_match_central_differences() {
    let h = 1e-6;
    for (loss_type, ..) in TABLE {
        for importance in [Importance::Token, Importance::Sequence] {
            for delta in [None, Some(1.1)] {
                let config = GrpoConfig { delta, ..config(loss_type, importance) };
                let analytic = case().loss(&config).dlogp;
                for (i, t) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
                    let at = |by: f64| {
                        let mut moved = case();
                        moved.logp[i][t] += by;
                        moved.loss(&config).loss
                    };
                    let numeric = (at(h) - at(-h)) / (2.0 * h);
                    let got = analytic[i][t];
                    let tolerance = 1e-9 + 1e-6 * numeric.abs();
                    let context = format!("{loss_type:?} {importance:?} {delta:?} {i} {t}");
                    assert!((got - numeric).abs() < tolerance, "{context}: {got} {numeric}");
                }
            }
        }
    }
}

fn single<'a>(logp: &'a [f64], mask: &'a [bool], advantage: f64) -> SequenceTerms<'a> {
    SequenceTerms {
        logp,
        old: None,
        reference: None,
        sampling: None,
        entropy: None,
        mask,
        advantage,
    }
}

const SCOPE: Scope = Scope { sequences: 1.0, tokens: 2.0, micro_batches: 1.0 };

#[test]
fn without_old_the_ratio_is_one() {
    let terms = single(&[-1.0, -3.0], &[true, true], 0.5);
    let got = grpo_loss(&GrpoConfig::default(), &[terms], SCOPE).unwrap();
    assert_eq!(got.loss, -0.5);
    assert_eq!(got.dlogp, [vec![-0.25, -0.25]]);
    assert_eq!(got.metrics.values(0.0)["clip_ratio/region_mean"], 0.0);
}

#[test]
fn masked_answers_and_poison_behind_the_mask_count_nothing() {
    let poison = [f64::NAN, f64::INFINITY];
    for (loss_type, ..) in TABLE {
        for importance in [Importance::Token, Importance::Sequence] {
            let terms = SequenceTerms {
                old: Some(&poison),
                reference: Some(&poison),
                sampling: Some(&poison),
                entropy: Some(&poison),
                ..single(&poison, &[false, false], 1.0)
            };
            let sampler = Correction { mode: SamplerMode::SequenceMask, ..Correction::default() };
            let config = GrpoConfig { sampler, ..config(loss_type, importance) };
            let scope = Scope { sequences: 0.0, tokens: 0.0, micro_batches: 0.0 };
            let got = grpo_loss(&config, &[terms], scope).unwrap();
            assert_eq!((got.loss, &got.dlogp[0]), (0.0, &vec![0.0, 0.0]), "{loss_type:?}");
            assert!(got.metrics.values(0.04).values().all(|v| v.is_finite()));
        }
    }
    let empty = grpo_loss(&GrpoConfig::default(), &[single(&[], &[], 1.0)], SCOPE).unwrap();
    assert_eq!((empty.loss, empty.dlogp), (0.0, vec![vec![]]));
}

#[test]
fn an_unmasked_nan_reaches_loss_and_gradient() {
    let (logp, old) = ([f64::NAN, -1.0], [-1.0, -1.0]);
    let terms = SequenceTerms { old: Some(&old), ..single(&logp, &[true, true], -1.0) };
    let got = grpo_loss(&GrpoConfig::default(), &[terms], SCOPE).unwrap();
    assert!(got.loss.is_nan() && got.dlogp[0][0].is_nan() && got.dlogp[0][1].is_finite());
}

#[test]
fn absurd_ratios_stay_finite() {
    for (logp, old) in [(-1.0, -4000.0), (-4000.0, -1.0)] {
        for advantage in [1.0, -1.0] {
            let (logp, old) = ([logp], [old]);
            let terms = SequenceTerms {
                old: Some(&old),
                reference: Some(&old),
                ..single(&logp, &[true], advantage)
            };
            let config = GrpoConfig { beta: 0.1, ..GrpoConfig::default() };
            let got = grpo_loss(&config, &[terms], SCOPE).unwrap();
            assert!(got.loss.is_finite() && got.dlogp[0][0].is_finite(), "{got:?}");
        }
    }
}

#[test]
fn sampler_weights_by_mode() {
    let (old, sampling) = ([-1.0, -1.0, 5.0], [-3.0, -0.5, 0.0]);
    let mask = [true, true, false];
    let (up, down) = (2f64.exp(), (-0.5f64).exp());
    let product = 1.5f64.exp();
    for (mode, max, want) in [
        (SamplerMode::Off, 3.0, [1.0, 1.0]),
        (SamplerMode::TokenTruncate, 3.0, [3.0, down]),
        (SamplerMode::TokenMask, 3.0, [0.0, down]),
        (SamplerMode::SequenceTruncate, 3.0, [3.0, 3.0]),
        (SamplerMode::SequenceMask, 3.0, [0.0, 0.0]),
        (SamplerMode::TokenTruncate, 8.0, [up, down]),
        (SamplerMode::SequenceMask, 8.0, [product, product]),
    ] {
        let config =
            GrpoConfig { sampler: Correction { mode, min: 0.0, max }, ..GrpoConfig::default() };
        let terms = SequenceTerms {
            old: Some(&old),
            sampling: Some(&sampling),
            ..single(&old, &mask, 1.0)
        };
        let got = grpo_loss(&config, &[terms], SCOPE).unwrap();
        let weights = [-got.dlogp[0][0] * 2.0, -got.dlogp[0][1] * 2.0];
        for (g, w) in weights.iter().zip(want) {
            assert!((g - w).abs() < 1e-12, "{mode:?}: {weights:?} {want:?}");
        }
        let values = got.metrics.values(0.0);
        assert_eq!(values["sampling/sampling_logp_difference/max"], 2.0);
        assert_eq!(values["sampling/sampling_logp_difference/mean"], 1.25);
    }
}

#[test]
fn terms_that_do_not_fit_are_errors_that_say_so() {
    let short = [0.0];
    let base = single(&[-1.0, -2.0], &[true, true], 1.0);
    let beta = GrpoConfig { beta: 0.1, ..GrpoConfig::default() };
    let corrected = GrpoConfig {
        sampler: Correction { mode: SamplerMode::TokenMask, ..Correction::default() },
        ..GrpoConfig::default()
    };
    for (config, terms, part) in [
        (GrpoConfig::default(), SequenceTerms { old: Some(&short), ..base }, "old has 1 entries"),
        (GrpoConfig::default(), SequenceTerms { mask: &[true], ..base }, "mask has 1 entries"),
        (beta, base, "no reference"),
        (corrected, base, "needs the sampler"),
    ] {
        let error = grpo_loss(&config, &[base, terms], SCOPE);
        let text = match error {
            Err(error) => error.to_string(),
            Ok(_) => panic!("accepted: {part}"),
        };
        assert!(text.contains(part), "{text}");
    }
}

/// The whole step's gradient is the same however it is cut into micro-batches.
#[test]
fn cutting_into_micro_batches_changes_nothing() {
    let logp: Vec<Vec<f64>> =
        (0..8).map(|i| (0..=i % 5).map(|t| -0.3 - 0.1 * (i * 7 + t) as f64).collect()).collect();
    let old: Vec<Vec<f64>> =
        logp.iter().map(|row| row.iter().map(|x| x + 0.17).collect()).collect();
    let masks: Vec<Vec<bool>> = logp.iter().map(|row| vec![true; row.len()]).collect();
    let terms: Vec<_> = (0..8)
        .map(|i| SequenceTerms {
            old: Some(&old[i]),
            ..single(&logp[i], &masks[i], i as f64 - 3.5)
        })
        .collect();
    let tokens = masks.iter().map(Vec::len).sum::<usize>() as f64;
    for loss_type in [LossType::Grpo, LossType::DrGrpo, LossType::Dapo] {
        for importance in [Importance::Token, Importance::Sequence] {
            let config = config_without_beta(loss_type, importance);
            let run = |size: usize| {
                let scope = Scope { sequences: 8.0, tokens, micro_batches: (8 / size) as f64 };
                let parts: Vec<_> = terms
                    .chunks(size)
                    .map(|part| grpo_loss(&config, part, scope).unwrap())
                    .collect();
                let loss: f64 = parts.iter().map(|p| p.loss).sum();
                (loss, parts.into_iter().flat_map(|p| p.dlogp).collect::<Vec<_>>())
            };
            let whole = run(8);
            for size in [1, 2, 4] {
                let cut = run(size);
                assert!((cut.0 - whole.0).abs() < 1e-12, "{loss_type:?} {size}");
                assert_eq!(cut.1, whole.1, "{loss_type:?} {size}");
            }
        }
    }
}

fn config_without_beta(loss_type: LossType, importance: Importance) -> GrpoConfig {
    GrpoConfig { beta: 0.0, ..config(loss_type, importance) }
}
