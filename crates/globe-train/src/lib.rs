//! Losses, rewards, data, checkpoints and the training loop of GLOBE's method, without a GPU.

mod error;
pub mod loss;
pub mod optimiser;
mod tensor;

pub use error::{Error, Result};
pub use tensor::Tensors;
