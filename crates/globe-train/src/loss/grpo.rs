//! Group relative policy optimisation: one micro-batch of answers to loss, gradient and metrics.
//!
//! With `d = logp - old`, `c1 = exp(d)` per token or `exp(mean d)` per answer:
//!
//! ```text
//! l     = -min(min(c1, delta) A, clamp(c1, 1 - eps_low, 1 + eps_high) A)
//! l     = l * sampler weight + beta * (exp(ref - logp) - (ref - logp) - 1)
//! grpo:           sum_i (sum_t l m / max(sum_t m, 1)) / sequences
//! bnpo, dapo:     sum l m / max(tokens, 1)
//! dr_grpo:        sum l m / (sequences * max_completion_tokens)
//! ```
//!
//! `sequences` and `tokens` are those of [`Scope`]: what one optimiser step sees, not what fits the
//! device at once.

use serde::{Deserialize, Serialize};

use super::{LossMetrics, SamplerConfig, SamplerMode};
use crate::{Error, Result};

/// Log-ratios are limited to this before the exponential, so that one absurd token cannot make an
/// infinity. TRL has no such limit; e^20 is far outside anything it would survive.
pub const LOG_RATIO_CLAMP: f64 = 20.0;

/// How token losses are averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// Mean over answers of the mean over tokens: short answers weigh more per token.
    Grpo,
    /// Mean over the tokens of the micro-batch, as TRL does; use `dapo` for one that does not
    /// depend on the size of micro-batches.
    Bnpo,
    /// Sum over tokens by a constant length.
    DrGrpo,
    /// Mean over the tokens of the whole optimiser step.
    #[default]
    Dapo,
}

/// What the probability ratio is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Importance {
    /// Each token.
    #[default]
    Token,
    /// The geometric mean over the answer (GSPO).
    Sequence,
}

/// Short name for the sampler correction within this module's configuration.
pub type Correction = SamplerConfig;

/// Constants of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GrpoConfig {
    /// Averaging.
    pub loss_type: LossType,
    /// Level of the probability ratio.
    pub importance: Importance,
    /// The ratio is clipped at `1 - epsilon_low`.
    pub epsilon_low: f64,
    /// The ratio is clipped at `1 + epsilon_high`.
    pub epsilon_high: f64,
    /// Upper limit of the unclipped ratio, for answers with a negative advantage.
    pub delta: Option<f64>,
    /// Weight of the divergence from the reference; 0 needs no reference.
    pub beta: f64,
    /// Length that `dr_grpo` divides by, in tokens.
    pub max_completion_tokens: usize,
    /// Correction for sampling with other numerics.
    pub sampler: Correction,
}

impl Default for GrpoConfig {
    fn default() -> Self {
        Self {
            loss_type: LossType::Dapo,
            importance: Importance::Token,
            epsilon_low: 0.2,
            epsilon_high: 0.2,
            delta: None,
            beta: 0.0,
            max_completion_tokens: 512,
            sampler: Correction::default(),
        }
    }
}

/// What one answer brings. All slices have one entry per answer token.
#[derive(Clone, Copy, Debug)]
pub struct SequenceTerms<'a> {
    /// Log-probabilities under the policy being trained.
    pub logp: &'a [f64],
    /// Those under the policy at generation; `None` means `logp` held fixed, a ratio of exactly 1.
    pub old: Option<&'a [f64]>,
    /// Those under the reference; needed unless `beta` is 0.
    pub reference: Option<&'a [f64]>,
    /// Those the sampler reported; needed by the sampler correction, and measured when present.
    pub sampling: Option<&'a [f64]>,
    /// Entropies of the predictions, only for the metrics.
    pub entropy: Option<&'a [f64]>,
    /// False for tokens that count nothing; all false for a masked truncated answer.
    pub mask: &'a [bool],
    /// Advantage of the answer.
    pub advantage: f64,
}

/// What the averages are taken over: the whole optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scope {
    /// Answers of the optimiser step, masked ones included.
    pub sequences: f64,
    /// Unmasked tokens of the optimiser step.
    pub tokens: f64,
    /// Micro-batches of the optimiser step, for [`LossType::Bnpo`] only.
    pub micro_batches: f64,
}

/// Loss of one micro-batch and its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpoLoss {
    /// Its share of the optimiser step's loss: shares add up.
    pub loss: f64,
    /// d loss / d logp, per answer and token.
    pub dlogp: Vec<Vec<f64>>,
    /// Sums for the log.
    pub metrics: LossMetrics,
}

/// Loss, gradient and metrics of a micro-batch.
///
/// # Errors
/// [`Error::Loss`] if slices of an answer differ in length, or a needed one is missing. Values that
/// are not finite are no error here: they reach the gradient, where the optimiser skips the step;
/// masked positions are never read.
pub fn grpo_loss(
    config: &GrpoConfig,
    batch: &[SequenceTerms<'_>],
    scope: Scope,
) -> Result<GrpoLoss> {
    for (i, terms) in batch.iter().enumerate() {
        check(config, terms).map_err(|reason| Error::Loss { sequence: i, reason })?;
    }
    let batch_tokens: usize = batch.iter().map(|s| n_unmasked(s.mask)).sum();
    let mut out = GrpoLoss { loss: 0.0, dlogp: Vec::new(), metrics: LossMetrics::default() };
    for terms in batch {
        let tokens = n_unmasked(terms.mask) as f64;
        let share = match config.loss_type {
            LossType::Grpo => 1.0 / (tokens.max(1.0) * scope.sequences.max(1.0)),
            LossType::Bnpo => 1.0 / ((batch_tokens as f64).max(1.0) * scope.micro_batches.max(1.0)),
            LossType::Dapo => 1.0 / scope.tokens.max(1.0),
            LossType::DrGrpo => {
                1.0 / (scope.sequences.max(1.0) * config.max_completion_tokens.max(1) as f64)
            }
        };
        let (loss, dlogp) = sequence_loss(config, terms, &mut out.metrics);
        out.loss += loss * share;
        out.dlogp.push(dlogp.into_iter().map(|g| g * share).collect());
    }
    out.metrics.loss = out.loss;
    Ok(out)
}

fn n_unmasked(mask: &[bool]) -> usize {
    mask.iter().filter(|&&m| m).count()
}

fn check(config: &GrpoConfig, terms: &SequenceTerms<'_>) -> std::result::Result<(), String> {
    let n = terms.logp.len();
    let optional = [
        ("old", terms.old),
        ("reference", terms.reference),
        ("sampling", terms.sampling),
        ("entropy", terms.entropy),
    ];
    if terms.mask.len() != n {
        return Err(format!("mask has {} entries for {n} tokens", terms.mask.len()));
    }
    for (name, values) in optional {
        if let Some(values) = values.filter(|v| v.len() != n) {
            return Err(format!("{name} has {} entries for {n} tokens", values.len()));
        }
    }
    if config.beta != 0.0 && terms.reference.is_none() {
        return Err("beta is not 0 but there are no reference log-probabilities".into());
    }
    if config.sampler.mode != SamplerMode::Off && terms.sampling.is_none() {
        return Err("the sampler correction needs the sampler's log-probabilities".into());
    }
    Ok(())
}

/// Unscaled sum over the answer's tokens and its derivative.
fn sequence_loss(
    config: &GrpoConfig,
    terms: &SequenceTerms<'_>,
    metrics: &mut LossMetrics,
) -> (f64, Vec<f64>) {
    let SequenceTerms { logp, mask, .. } = *terms;
    let old = terms.old.unwrap_or(logp);
    let n_tokens = n_unmasked(mask);
    let weights = match terms.sampling {
        Some(sampling) => config.sampler.weights(old, sampling, mask),
        None => vec![1.0; logp.len()],
    };
    // Select first: what stands at a masked position may be anything, NaN included.
    let log_ratio = |t: usize| if mask[t] { logp[t] - old[t] } else { 0.0 };
    let mean_log_ratio = (0..logp.len()).map(log_ratio).sum::<f64>() / n_tokens.max(1) as f64;

    let mut loss = 0.0;
    let mut dlogp = vec![0.0; logp.len()];
    let mut d_mean = 0.0;
    let mut clipped = [0usize; 2];
    let at_sequence = config.importance == Importance::Sequence;
    for t in (0..logp.len()).filter(|&t| mask[t]) {
        let ratio = Ratio::new(if at_sequence { mean_log_ratio } else { log_ratio(t) });
        let surrogate = surrogate(config, &ratio, terms.advantage);
        loss += surrogate.loss * weights[t];
        match at_sequence {
            true => d_mean += surrogate.d_log_ratio * weights[t],
            false => dlogp[t] += surrogate.d_log_ratio * weights[t],
        }
        clipped[0] += usize::from(surrogate.low_clipped);
        clipped[1] += usize::from(surrogate.high_clipped);
        if let Some(reference) = terms.reference.filter(|_| config.beta != 0.0) {
            let (kl, d_kl) = k3(reference[t] - logp[t]);
            loss += config.beta * kl;
            dlogp[t] += config.beta * d_kl;
            metrics.kl_sum += kl;
        }
        if let Some(entropy) = terms.entropy {
            metrics.entropy_sum += entropy[t];
        }
    }
    for t in (0..logp.len()).filter(|&t| at_sequence && mask[t]) {
        dlogp[t] += d_mean / n_tokens.max(1) as f64;
    }
    metrics.add_sequence(n_tokens, clipped, at_sequence);
    if let Some(sampling) = terms.sampling {
        metrics.add_sampler(old, sampling, mask, &weights);
    }
    (loss, dlogp)
}

/// A probability ratio and its derivative by the log-ratio.
struct Ratio {
    value: f64,
    derivative: f64,
}

impl Ratio {
    fn new(log_ratio: f64) -> Self {
        let limited = log_ratio.clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP);
        let value = limited.exp();
        Self { value, derivative: if limited == log_ratio { value } else { 0.0 } }
    }
}

struct Surrogate {
    loss: f64,
    d_log_ratio: f64,
    low_clipped: bool,
    high_clipped: bool,
}

fn surrogate(config: &GrpoConfig, ratio: &Ratio, advantage: f64) -> Surrogate {
    let (low, high) = (1.0 - config.epsilon_low, 1.0 + config.epsilon_high);
    let limit = config.delta.unwrap_or(f64::INFINITY);
    let c1 = ratio.value.min(limit);
    let c2 = ratio.value.clamp(low, high);
    let (first, second) = (c1 * advantage, c2 * advantage);
    // Equal inside the range, where both pass the gradient on.
    let passes = match first <= second {
        true => ratio.value <= limit,
        false => (low..=high).contains(&ratio.value),
    };
    // A NaN must not be lost in `min`, which prefers the other value.
    let loss = if ratio.value.is_nan() { f64::NAN } else { -first.min(second) };
    let d_log_ratio = match (loss.is_nan(), passes) {
        (true, _) => f64::NAN,
        (false, true) => -advantage * ratio.derivative,
        (false, false) => 0.0,
    };
    Surrogate {
        loss,
        d_log_ratio,
        low_clipped: c1 < low && advantage < 0.0,
        high_clipped: c1 > high && advantage > 0.0,
    }
}

/// `exp(x) - x - 1` for `x = ref - logp`, and its derivative by `logp`.
fn k3(x: f64) -> (f64, f64) {
    let limited = x.clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP);
    if limited != x && !x.is_nan() {
        return (limited.exp() - limited - 1.0, 0.0);
    }
    (x.exp() - x - 1.0, 1.0 - x.exp())
}

#[cfg(test)]
mod tests;
