//! Ctrl-C: the first stops between two steps and keeps what is done, the second stops at once.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use globe_engine::Cancel;

use crate::console::say;
use crate::exit::Exit;

/// What the signal handler and the command share.
#[derive(Clone, Default)]
pub struct Interrupt {
    cancel: Cancel,
    has_work: Arc<AtomicBool>,
    partial: Arc<Mutex<Option<PathBuf>>>,
}

impl Interrupt {
    /// Takes over Ctrl-C and the signals that ask a program to end.
    pub fn install() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || handler.on_signal())?;
        Ok(interrupt)
    }

    /// The flag that the engine reads.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Called when results may exist: from now on the first signal waits for the current step.
    pub fn begin_work(&self) {
        self.has_work.store(true, Ordering::Relaxed);
    }

    /// Names the unfinished file that a stop at once removes.
    pub fn set_partial(&self, path: Option<PathBuf>) {
        *self.partial.lock().unwrap_or_else(PoisonError::into_inner) = path;
    }

    fn on_signal(&self) {
        if self.has_work.load(Ordering::Relaxed) && !self.cancel.is_cancelled() {
            self.cancel.cancel();
            say(format_args!("stopping after this step; press Ctrl-C again to stop at once"));
            return;
        }
        // The lock is kept, so that the other thread cannot rename the file meanwhile.
        let partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &*partial {
            // Best effort: the process ends either way.
            let _ = std::fs::remove_file(path);
        }
        std::process::exit(Exit::Interrupted as i32);
    }
}
