//! The model as a policy that can be trained, and as a judge of answers.
//!
//! [`globe_train`] knows rewards, losses and checkpoints and no device; [`globe_model`] knows the
//! device and no training loop. This crate is what lies between: answers sampled by the engine,
//! log-probabilities and gradients of the training pass, and AdamW on the device.

mod adamw;
mod adapter;
mod identity;
mod judge;
mod look;
mod pass;
mod policy;
mod saving;

pub use adapter::{fresh, from_peft, to_peft};
pub use identity::identity;
pub use judge::ModelJudge;
pub use policy::{ModelPolicy, PolicyOptions, Shared};
