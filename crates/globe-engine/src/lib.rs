//! Prompt to tokens to places: sampling, generation, locating.
//!
//! The same code runs in a tab, in the command line and in the trainer. Nothing is global: the
//! caller holds the [`Session`] and passes it in.

mod batch;
mod cancel;
mod compare;
mod engine;
mod error;
mod features;
mod generate;
mod locate;
mod memory;
mod pace;
mod room;
mod sampling;
mod training;

pub use cancel::Cancel;
pub use compare::{CompareOptions, Comparison, compare};
pub use engine::{Engine, Prepared, Session, check_small_files};
pub use error::{Error, Result};
pub use features::FeatureCache;
pub use generate::{Event, Generated, Generation, StopReason};
pub use globe_rng::{Draw, philox};
pub use locate::{ExifGps, LocateOptions, LocateResult, SampleResult, Timings, locate};
pub use memory::{DEFAULT_BATCH, Demand, LoadOptions, PROMPT_BUCKET, plan};
pub use sampling::Sampling;
