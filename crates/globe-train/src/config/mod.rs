//! One TOML file: all settings of a run, each with its documentation.

mod diff;
mod keys;
mod read;

pub use diff::Difference;
pub use keys::GeoKind;
pub use keys::{
    CheckpointSection, Config, DataSection, JudgeKind, Key, LoraSection, LossSection, ModelSection,
    OldLogps, OptimiserSection, RewardsSection, RolloutSection, RunSection, TrainingSection,
    WatchSection, Weights,
};
