//! Losses, rewards, data, checkpoints and the training loop of GLOBE's method, without a GPU.

pub mod checkpoint;
pub mod config;
pub mod data;
mod error;
pub mod loss;
pub mod optimiser;
pub mod rewards;
mod tensor;

pub use error::{Error, Result};
pub use tensor::Tensors;
