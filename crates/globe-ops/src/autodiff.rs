//! The names that every op needs to run under automatic differentiation.

pub(crate) use burn::backend::autodiff::Autodiff;
pub(crate) use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy as Strategy;
