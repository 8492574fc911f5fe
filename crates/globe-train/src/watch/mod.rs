//! Watching a run: files that stay, lines, a live terminal, a report with pictures.

mod lines;
mod metrics;
mod report;
mod tensorboard;
mod terminal;

pub use lines::Lines;
pub use metrics::{MetricsFile, read_metrics};
pub use report::{Report, rewrite};
pub use tensorboard::EventFile;
pub use terminal::{Dashboard, TerminalUi, give_terminal_back};

use crate::{
    Result,
    trainer::{Observer, TrainEvent},
};

/// Several watchers as one, in order; the first error ends the run.
#[derive(Default)]
pub struct Watchers(Vec<Box<dyn Observer>>);

impl Watchers {
    /// Adds a watcher.
    pub fn with(mut self, watcher: impl Observer + 'static) -> Self {
        self.0.push(Box::new(watcher));
        self
    }
}

impl Observer for Watchers {
    fn on(&mut self, event: &TrainEvent<'_>) -> Result<()> {
        self.0.iter_mut().try_for_each(|watcher| watcher.on(event))
    }
}
