//! What happens while training runs, for whoever watches.

use std::{collections::BTreeMap, path::Path};

use crate::{
    Result,
    data::{BadImage, Stream},
};

/// One answer as shown to people.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerReport {
    /// Its text.
    pub text: String,
    /// Per reward, its value.
    pub parts: Vec<Option<f64>>,
    /// Weighted sum.
    pub total: Option<f64>,
    /// Against the group.
    pub advantage: f64,
    /// True when it ran into the length limit.
    pub truncated: bool,
    /// Length in tokens.
    pub tokens: usize,
}

/// A photo with the answers to it.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleReport {
    /// Id of the row.
    pub id: String,
    /// The right answer.
    pub truth: String,
    /// Encoded bytes of the photo.
    pub image: Vec<u8>,
    /// Names of the rewards.
    pub names: Vec<String>,
    /// All answers of the group.
    pub answers: Vec<AnswerReport>,
}

/// Numbers of one optimiser step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepStats {
    /// Optimiser steps done, this one included.
    pub step: u64,
    /// By TRL's names where TRL has one; those that begin with `time/` differ from run to run.
    pub values: BTreeMap<String, f64>,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum TrainEvent<'a> {
    /// Training begins or goes on after `step` of `total` steps; what was logged beyond is void.
    Started {
        /// Steps done.
        step: u64,
        /// Steps in all.
        total: u64,
        /// Names and weights of the rewards.
        weights: &'a [(String, f64)],
    },
    /// Answers were sampled and scored, for the steps after `step`.
    Samples {
        /// Steps done.
        step: u64,
        /// Some of the photos.
        samples: &'a [SampleReport],
    },
    /// A step is done.
    Step(&'a StepStats),
    /// A checkpoint is complete.
    Checkpoint(&'a Path),
    /// Something a person should know, such as a step that was skipped.
    Warning(&'a str),
    /// Training is over.
    Ended {
        /// Steps done.
        step: u64,
        /// False when it was asked to stop.
        complete: bool,
    },
}

/// Someone who watches.
pub trait Observer {
    /// Sees an event.
    ///
    /// # Errors
    /// If it cannot be recorded, such as for a full disk: training stops with a checkpoint.
    fn on(&mut self, event: &TrainEvent<'_>) -> Result<()>;
}

impl<F: FnMut(&TrainEvent<'_>) -> Result<()>> Observer for F {
    fn on(&mut self, event: &TrainEvent<'_>) -> Result<()> {
        self(event)
    }
}

/// Names photos that were left out for the first time.
pub(super) fn warn_of_bad_images(stream: &mut Stream, watch: &mut dyn Observer) -> Result<()> {
    for BadImage { id, reason } in stream.new_bad_images() {
        let text = format!("photo of row {id} left out: {reason}");
        watch.on(&TrainEvent::Warning(&text))?;
    }
    Ok(())
}
