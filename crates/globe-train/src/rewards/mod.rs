//! Rewards: what an answer is worth, in parts.
//!
//! A reward that cannot say gives `None`, which is counted and enters no mean; one that fails is an
//! error. Neither is ever a silent 0.

mod answer;
mod format;
mod geo;
mod judge;
mod locatability;
mod server;
mod visual;

pub use answer::{Answer, read_answer};
pub use format::Format;
pub use geo::{Geo, GeoForm, NameMatch};
pub use judge::{Judge, JudgeRequest, YesNo};
pub use locatability::Locatability;
pub use server::{JudgeServer, ServerConfig};
pub use visual::{Lexicon, Visual, VisualForm};

use crate::{Error, Result, data::Sample};

/// One answer to be scored.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// What is known about the photo.
    pub sample: &'a Sample,
    /// The whole text of the answer.
    pub text: &'a str,
    /// True when the answer ran into the length limit.
    pub truncated: bool,
}

/// One part of the reward.
pub trait Reward {
    /// Name in logs, such as `geo`.
    fn name(&self) -> &str;

    /// One value per attempt, in order; `None` where the reward does not apply or has no evidence.
    ///
    /// # Errors
    /// If the reward could not be computed, such as a server that stays away. Training then stops
    /// with a checkpoint.
    fn score(&mut self, attempts: &[Attempt<'_>]) -> Result<Vec<Option<f64>>>;
}

/// How the format reward enters the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combination {
    /// As one more term, as GLOBE does.
    #[default]
    Additive,
    /// An answer whose `format` is 0 is worth 0 whatever else it says.
    Gated,
}

/// Rewards with their weights.
pub struct RewardSet {
    rewards: Vec<(Box<dyn Reward>, f64)>,
    combination: Combination,
}

/// Scores of a batch of attempts.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Names of the rewards, in order.
    pub names: Vec<String>,
    /// Per attempt, one value per reward.
    pub parts: Vec<Vec<Option<f64>>>,
    /// Per attempt, the weighted sum of the values that exist; `None` without any.
    pub totals: Vec<Option<f64>>,
}

impl Scores {
    /// How often each reward had no value.
    pub fn missing(&self) -> Vec<usize> {
        let count = |k: usize| self.parts.iter().filter(|parts| parts[k].is_none()).count();
        (0..self.names.len()).map(count).collect()
    }
}

impl RewardSet {
    /// No rewards yet.
    pub fn new(combination: Combination) -> Self {
        Self { rewards: Vec::new(), combination }
    }

    /// Adds a reward. One with weight 0 is computed and logged but counts nothing.
    pub fn with(mut self, reward: impl Reward + 'static, weight: f64) -> Self {
        self.rewards.push((Box::new(reward), weight));
        self
    }

    /// Names and weights, for the log: no weight is implied.
    pub fn weights(&self) -> Vec<(String, f64)> {
        self.rewards.iter().map(|(reward, weight)| (reward.name().to_owned(), *weight)).collect()
    }

    /// Scores all attempts by all rewards.
    ///
    /// # Errors
    /// The first error of a reward; [`Error::Reward`] for one that returns too few or too many
    /// values or one that is not finite.
    pub fn score(&mut self, attempts: &[Attempt<'_>]) -> Result<Scores> {
        let names = self.rewards.iter().map(|(reward, _)| reward.name().to_owned()).collect();
        let mut parts = vec![Vec::with_capacity(self.rewards.len()); attempts.len()];
        for (reward, _) in &mut self.rewards {
            let values = reward.score(attempts)?;
            check(reward.name(), &values, attempts)?;
            for (part, value) in parts.iter_mut().zip(values) {
                part.push(value);
            }
        }
        let scores = Scores { names, totals: Vec::new(), parts };
        let totals = scores.parts.iter().map(|parts| self.total(&scores.names, parts)).collect();
        Ok(Scores { totals, ..scores })
    }

    fn total(&self, names: &[String], parts: &[Option<f64>]) -> Option<f64> {
        let terms = self.rewards.iter().zip(parts).filter_map(|((_, w), v)| v.map(|v| w * v));
        let sum = terms.reduce(|a, b| a + b)?;
        let format = names.iter().position(|n| n == format::NAME).and_then(|k| parts[k]);
        let closed = self.combination == Combination::Gated && format == Some(0.0);
        Some(if closed { 0.0 } else { sum })
    }
}

fn check(name: &str, values: &[Option<f64>], attempts: &[Attempt<'_>]) -> Result<()> {
    let fail = |reason| Err(Error::Reward { name: name.into(), reason });
    if values.len() != attempts.len() {
        return fail(format!("{} values for {} answers", values.len(), attempts.len()));
    }
    match values.iter().position(|v| v.is_some_and(|v| !v.is_finite())) {
        Some(i) => fail(format!("answer {i} got {:?}", values[i])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
