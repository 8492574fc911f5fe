//! Training loops in plain sight.
//!
//! [`Trainer`] is GRPO: sample a group of answers per photo, score them, compare within the group,
//! step. [`Supervised`] imitates known answers or learns yes/no judgements. Neither knows a device:
//! both speak to a [`Policy`](crate::Policy). Neither prints: both report [`TrainEvent`]s.

mod bits;
mod buffer;
mod event;
mod generate;
mod grpo;
mod pack;
mod saved;
mod supervised;

pub use event::{AnswerReport, Observer, SampleReport, StepStats, TrainEvent};
pub use grpo::{Ending, Trainer};
pub use saved::{RunState, resume_differences};
pub use supervised::{Supervised, Task};
