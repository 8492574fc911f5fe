//! Model files: configuration, blocks, caches.
//!
//! One file per architecture. A model never opens a file: bytes come through
//! [`globe_format::Files`], so a folder on disk and one in a browser load alike.

mod batch;
mod cache;
mod config;
mod error;
mod gradients;
mod layers;
mod lora;
mod model;
mod packed_specs;
mod plan;
mod qwen2_5_vl;
mod rope;
mod training_plan;
mod vision_layout;
mod weight_parameters;
mod weights;

pub use batch::{Batch, Drawn};
pub use cache::Cache;
pub use config::{Config, TextConfig, VisionConfig};
pub use error::{Error, Result};
pub use gradients::Gradients;
pub use lora::{LoraMatrices, LoraModules, LoraParameters, LoraSet, LoraShape};
pub use model::{ImageGrid, Model, StoredAs, Summary};
pub use plan::{MemoryPlan, WeightPlan, Workload};
pub use qwen2_5_vl::{
    AnswerGroup, AnswerLogps, Qwen2_5Vl, Trace, TraceStage, TrainingPass, VisionPass,
};
pub use rope::{MropePositions, mrope_positions};
pub use training_plan::{AdapterPlan, TrainingPlan, TrainingWorkload};
pub use vision_layout::VisionLayout;
pub use weight_parameters::{EachTensor, WeightParameters};
pub use weights::Precision;
