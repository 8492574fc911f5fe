//! Losses as pure functions of log-probabilities, with their gradients. No device, no model.
//!
//! The policy computes the log-probability of each chosen token; what is here turns those into a
//! loss and into d loss / d log-probability, which is all that goes back to the device. Arithmetic
//! is f64. Formulas are those of TRL's `GRPOTrainer._compute_loss`; `tests/golden` compares them.

mod advantages;
mod grpo;
mod metrics;
mod sampler;
mod supervised;

pub use advantages::{Advantages, STD_EPS, Scaling, advantages, std_unbiased};
pub use grpo::{
    Correction, GrpoConfig, GrpoLoss, Importance, LOG_RATIO_CLAMP, LossType, Scope, SequenceTerms,
    grpo_loss,
};
pub use metrics::LossMetrics;
pub use sampler::{SamplerConfig, SamplerMode};
pub use supervised::{CrossEntropy, YesNoLoss, cross_entropy, yes_no_loss};
