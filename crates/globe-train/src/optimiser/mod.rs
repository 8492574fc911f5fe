//! AdamW on the host, schedules, clipping, and what happens when a gradient is not finite.

mod adamw;
mod clip;
mod guard;
mod schedule;

pub use adamw::{AdamW, AdamWConfig, StateBits};
pub use clip::{clip_by_norm, global_norm};
pub use guard::{Guard, Verdict};
pub use schedule::{Decay, Schedule};
