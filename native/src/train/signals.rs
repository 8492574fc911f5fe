//! Ctrl-C, SIGTERM and SIGHUP: while training runs, the first ends it after the current step, with a
//! checkpoint, and the second at once. Before it runs there is nothing to keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Context;
use globe_train::watch::give_terminal_back;

use crate::console::say;
use crate::exit::Exit;

/// What the signal handler and the run share.
#[derive(Clone, Default)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    has_work: Arc<AtomicBool>,
    has_terminal: Arc<AtomicBool>,
}

impl Signals {
    /// Takes over the signals that ask a program to end.
    pub fn install() -> anyhow::Result<Self> {
        let signals = Self::default();
        let handler = signals.clone();
        ctrlc::set_handler(move || handler.on_signal()).context("cannot watch for Ctrl-C")?;
        Ok(signals)
    }

    /// Set once the run is to end.
    pub fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    /// Called when training begins: from now on the first signal waits for the current step.
    pub fn begin_work(&self) {
        self.has_work.store(true, Relaxed);
    }

    /// Says whether a live view has the terminal: it shows that training stops, and an end at once
    /// gives the terminal back.
    pub fn set_terminal(&self, is_taken: bool) {
        self.has_terminal.store(is_taken, Relaxed);
    }

    fn on_signal(&self) {
        let has_terminal = self.has_terminal.load(Relaxed);
        if !self.has_work.load(Relaxed) || self.stop.swap(true, Relaxed) {
            if has_terminal {
                give_terminal_back();
            }
            std::process::exit(Exit::Interrupted as i32);
        }
        if !has_terminal {
            say(format_args!(
                "stopping after this step, with a checkpoint; press Ctrl-C again to stop at once"
            ));
        }
    }
}
