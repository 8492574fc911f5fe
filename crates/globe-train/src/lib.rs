//! Losses, rewards, data, checkpoints and the training loop of GLOBE's method, without a GPU.

pub mod assemble;
pub mod checkpoint;
pub mod config;
pub mod data;
mod error;
pub mod loss;
pub mod optimiser;
mod policy;
pub mod rewards;
mod state;
mod tensor;
pub mod trainer;
pub mod watch;

pub use error::{Error, Result};
pub use policy::{
    Completion, Gradient, Policy, PolicyError, PolicyResult, Prompt, Sampling, Sequence, Side,
    StepOutcome, Stop, TokenLogps,
};
pub use state::{NamedShape, PolicyState, StateLayout, StateSink, StateSource, TensorSource};
pub use tensor::Tensors;
