//! Sums over tokens and answers that become the numbers of a log line.

use std::collections::BTreeMap;

/// Sums of one or several micro-batches. Names of the results are those of TRL.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossMetrics {
    /// Sum of the micro-batches' shares of the loss.
    pub loss: f64,
    /// Sum of the divergence from the reference over tokens.
    pub kl_sum: f64,
    /// Sum of the entropy over tokens.
    pub entropy_sum: f64,
    /// Unmasked tokens.
    pub tokens: usize,
    /// Ratios clipped from below and from above, and how many ratios there are.
    clipped: [f64; 2],
    ratios: f64,
    /// Largest and smallest share within one answer.
    low_min: Option<f64>,
    high_max: Option<f64>,
    /// |old - sampling| over tokens: sum and maximum; and the weights made from it.
    difference_sum: f64,
    difference_max: f64,
    sampled_tokens: usize,
    weight_sum: f64,
    weight_min: Option<f64>,
    weight_max: Option<f64>,
}

impl LossMetrics {
    pub(super) fn add_sequence(&mut self, tokens: usize, clipped: [usize; 2], at_sequence: bool) {
        self.tokens += tokens;
        if tokens == 0 {
            return;
        }
        let share = clipped.map(|n| n as f64 / tokens as f64);
        // One ratio per answer, or one per token.
        let ratios = if at_sequence { 1.0 } else { tokens as f64 };
        self.ratios += ratios;
        self.clipped[0] += share[0] * ratios;
        self.clipped[1] += share[1] * ratios;
        self.low_min = least(self.low_min, Some(share[0]));
        self.high_max = greatest(self.high_max, Some(share[1]));
    }

    pub(super) fn add_sampler(&mut self, old: &[f64], sampling: &[f64], mask: &[bool], w: &[f64]) {
        for t in (0..old.len()).filter(|&t| mask[t]) {
            let difference = (old[t] - sampling[t]).abs();
            self.difference_sum += difference;
            self.difference_max = self.difference_max.max(difference);
            self.sampled_tokens += 1;
            self.weight_sum += w[t];
            self.weight_min = least(self.weight_min, Some(w[t]));
            self.weight_max = greatest(self.weight_max, Some(w[t]));
        }
    }

    /// Adds another micro-batch.
    pub fn merge(&mut self, other: &Self) {
        self.loss += other.loss;
        self.kl_sum += other.kl_sum;
        self.entropy_sum += other.entropy_sum;
        self.tokens += other.tokens;
        self.clipped[0] += other.clipped[0];
        self.clipped[1] += other.clipped[1];
        self.ratios += other.ratios;
        self.low_min = least(self.low_min, other.low_min);
        self.high_max = greatest(self.high_max, other.high_max);
        self.difference_sum += other.difference_sum;
        self.difference_max = self.difference_max.max(other.difference_max);
        self.sampled_tokens += other.sampled_tokens;
        self.weight_sum += other.weight_sum;
        self.weight_min = least(self.weight_min, other.weight_min);
        self.weight_max = greatest(self.weight_max, other.weight_max);
    }

    /// Named values: means over all tokens added so far, extremes over answers.
    pub fn values(&self, beta: f64) -> BTreeMap<String, f64> {
        let tokens = self.tokens.max(1) as f64;
        let ratios = self.ratios.max(1.0);
        let [low, high] = self.clipped.map(|sum| sum / ratios);
        let mut values = vec![
            ("loss", self.loss),
            ("entropy", self.entropy_sum / tokens),
            ("clip_ratio/low_mean", low),
            ("clip_ratio/high_mean", high),
            ("clip_ratio/region_mean", low + high),
            ("clip_ratio/low_min", self.low_min.unwrap_or(0.0)),
            ("clip_ratio/high_max", self.high_max.unwrap_or(0.0)),
        ];
        if beta != 0.0 {
            values.push(("kl", self.kl_sum / tokens));
        }
        if self.sampled_tokens > 0 {
            let n = self.sampled_tokens as f64;
            values.extend([
                ("sampling/sampling_logp_difference/mean", self.difference_sum / n),
                ("sampling/sampling_logp_difference/max", self.difference_max),
                ("sampling/importance_sampling_ratio/min", self.weight_min.unwrap_or(1.0)),
                ("sampling/importance_sampling_ratio/mean", self.weight_sum / n),
                ("sampling/importance_sampling_ratio/max", self.weight_max.unwrap_or(1.0)),
            ]);
        }
        values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn least(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::min)
}

fn greatest(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::max)
}
