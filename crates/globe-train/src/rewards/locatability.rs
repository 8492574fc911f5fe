//! Does the reasoning hold for this photo? Asked of a judge.

use super::{Attempt, Judge, JudgeRequest, Reward, read_answer};
use crate::{Error, Result};

/// The question; `{reasoning}` is replaced. The reward model is trained with the same words.
const QUESTION: &str = "Below is reasoning about where this photo was taken.\n\n{reasoning}\n\n\
    Do the things visible in the photo support this reasoning well enough to locate it? \
    Answer Yes or No.";

/// `p(yes) / (p(yes) + p(no))` of a judge that sees the photo and the thought.
///
/// An answer without a thought is worth 0: there is nothing to judge. A judge that says neither yes
/// nor no gives `None`.
pub struct Locatability<J> {
    judge: J,
}

impl<J: Judge> Locatability<J> {
    /// Asks `judge`.
    pub fn new(judge: J) -> Self {
        Self { judge }
    }

    /// The question about a thought, for training the judge with the same words.
    pub fn question(thought: &str) -> String {
        QUESTION.replace("{reasoning}", thought)
    }
}

impl<J: Judge> Reward for Locatability<J> {
    fn name(&self) -> &str {
        "locatability"
    }

    fn score(&mut self, attempts: &[Attempt<'_>]) -> Result<Vec<Option<f64>>> {
        let mut values = vec![Some(0.0); attempts.len()];
        let mut asked = Vec::new();
        for (i, attempt) in attempts.iter().enumerate() {
            if let Some(thought) = read_answer(attempt.text).thought {
                asked.push((i, attempt.sample.image.bytes()?, Self::question(&thought)));
            }
        }
        let requests: Vec<_> =
            asked.iter().map(|(_, image, question)| JudgeRequest { image, question }).collect();
        let answers = self.judge.judge(&requests)?;
        if answers.len() != requests.len() {
            let reason = format!("{} answers to {} questions", answers.len(), requests.len());
            return Err(Error::Reward { name: self.name().into(), reason });
        }
        for ((i, ..), answer) in asked.iter().zip(answers) {
            values[*i] = answer.p_yes();
        }
        Ok(values)
    }
}
