//! Scored answers waiting for their optimiser steps. Part of a checkpoint.

use std::{collections::BTreeMap, sync::Arc};

use globe_rng::{derive, shuffle};
use serde::{Deserialize, Serialize};

use super::bits;
use crate::{Completion, Prompt, Stop};

/// Purpose of the random numbers that cut a generation into steps.
const CUT: u32 = 11;

/// One answer with its score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Which of the buffer's prompts.
    pub prompt: usize,
    pub ids: Vec<u32>,
    #[serde(with = "bits")]
    pub sampling: Vec<f32>,
    pub text: String,
    pub stop: Stop,
    /// One value per reward.
    pub parts: Vec<Option<f64>>,
    pub total: Option<f64>,
    #[serde(with = "bits::f64_bits")]
    pub advantage: f64,
    /// Log-probabilities at generation, if a pass was made for them.
    pub old: Option<Bits>,
    /// Those of the reference, if kept.
    pub reference: Option<Bits>,
}

/// Floats that survive JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Bits(#[serde(with = "bits")] pub Vec<f32>);

impl Answer {
    pub fn new(prompt: usize, completion: Completion) -> Self {
        Self {
            prompt,
            ids: completion.ids,
            sampling: completion.logp,
            text: completion.text,
            stop: completion.stop,
            parts: Vec::new(),
            total: None,
            advantage: 0.0,
            old: None,
            reference: None,
        }
    }
}

/// What is known about a prompt, for the reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub id: String,
    pub truth: String,
    /// Kept beside the JSON.
    #[serde(skip)]
    pub image: Vec<u8>,
}

impl Asked {
    pub fn prompt(&self) -> Prompt {
        Prompt { id: self.id.clone(), image: Arc::from(self.image.as_slice()), question: None }
    }
}

/// A generation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Buffer {
    pub prompts: Vec<Asked>,
    pub answers: Vec<Answer>,
    /// Optimiser step it was made for.
    pub made_at: u64,
    /// Optimiser steps taken from it.
    pub steps_done: usize,
    /// Names of the rewards.
    pub names: Vec<String>,
    /// Its numbers, logged with its first step.
    #[serde(with = "bits::map_bits")]
    pub values: BTreeMap<String, f64>,
}

impl Buffer {
    /// Answers of its next optimiser step, of `cuts` per pass.
    pub fn next_batch(&self, seed: u64, cuts: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.answers.len()).collect();
        if cuts > 1 {
            let pass = (self.steps_done / cuts) as u32;
            shuffle(&mut order, derive(seed, self.made_at as u32, pass, CUT));
        }
        let size = self.answers.len() / cuts.max(1);
        let start = self.steps_done % cuts.max(1) * size;
        let mut batch = order[start..start + size].to_vec();
        batch.sort_unstable(); // answers to one prompt side by side: it is then computed once
        batch
    }
}
