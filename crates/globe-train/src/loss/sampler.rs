//! Weights for answers that were sampled with other numerics, or by an older policy, than the one trained.

use serde::{Deserialize, Serialize};

use super::grpo::LOG_RATIO_CLAMP;

/// How `exp(old - sampling)` enters the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerMode {
    /// Not at all.
    #[default]
    Off,
    /// Per token, limited to the range.
    TokenTruncate,
    /// Per token; outside the range the token counts nothing.
    TokenMask,
    /// The product over the answer, limited to the range.
    SequenceTruncate,
    /// The product over the answer; outside the range the answer counts nothing.
    SequenceMask,
}

/// Sampler correction: mode and range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerConfig {
    /// How the ratio enters.
    pub mode: SamplerMode,
    /// Lower end of the range.
    pub min: f64,
    /// Upper end of the range.
    pub max: f64,
}

impl Default for SamplerConfig {
    /// Off, with the range up to 3 that TRL uses.
    fn default() -> Self {
        Self { mode: SamplerMode::Off, min: 0.0, max: 3.0 }
    }
}

impl SamplerConfig {
    /// One weight per token. Masked tokens count 1 and enter no product.
    pub(super) fn weights(&self, old: &[f64], sampling: &[f64], mask: &[bool]) -> Vec<f64> {
        let diff = |t: usize| if mask[t] { old[t] - sampling[t] } else { 0.0 };
        let ratio = |d: f64| d.clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP).exp();
        let masked = |r: f64| if (self.min..=self.max).contains(&r) { r } else { 0.0 };
        let n = old.len();
        let sequence = || ratio((0..n).map(diff).sum());
        match self.mode {
            SamplerMode::Off => vec![1.0; n],
            SamplerMode::TokenTruncate => {
                (0..n).map(|t| ratio(diff(t)).clamp(self.min, self.max)).collect()
            }
            SamplerMode::TokenMask => (0..n).map(|t| masked(ratio(diff(t)))).collect(),
            SamplerMode::SequenceTruncate => vec![sequence().clamp(self.min, self.max); n],
            SamplerMode::SequenceMask => vec![masked(sequence()); n],
        }
    }
}
