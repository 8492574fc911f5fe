//! Learning rate by step.

use serde::{Deserialize, Serialize};

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Half a cosine down to 0 at the last step.
    #[default]
    Cosine,
    /// Not at all.
    Constant,
}

/// Linear warm-up, then a decay. Agrees with `get_cosine_schedule_with_warmup` of transformers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Rate after the warm-up.
    pub peak: f64,
    /// Steps of the warm-up; the first has rate 0.
    pub warmup_steps: u64,
    /// Steps in all.
    pub total_steps: u64,
    /// Shape after the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// The rate of step `step`, counted from 0.
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        match self.decay {
            Decay::Constant => self.peak,
            Decay::Cosine => {
                let span = self.total_steps.saturating_sub(self.warmup_steps).max(1);
                let progress = (step - self.warmup_steps) as f64 / span as f64;
                let cosine = (std::f64::consts::PI * progress.min(1.0)).cos();
                self.peak * (0.5 * (1.0 + cosine)).max(0.0)
            }
        }
    }
}
