//! From logits to the next token on the host: penalties, temperature, top-k, top-p, one draw.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How tokens are chosen. The order of the steps is that of vLLM: penalties, temperature, top-k, top-p.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the most likely token.
    pub temperature: f32,
    /// Only the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Only the fewest tokens whose probabilities reach this; 1 keeps all.
    pub top_p: f32,
    /// Logits of tokens seen in prompt or answer shrink by this factor (arXiv 1909.05858); 1 is off.
    pub repetition_penalty: f32,
    /// Taken from a logit for each time its token occurs in the answer; 0 is off.
    pub frequency_penalty: f32,
    /// Taken once from the logit of each token that occurs in the answer; 0 is off.
    pub presence_penalty: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
        }
    }
}

impl Sampling {
    /// The most likely token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Errors naming the first value out of range.
    ///
    /// # Errors
    /// [`Error::Sampling`].
    pub fn check(&self) -> Result<()> {
        let known = |name, value: f32, ok: bool, expected| {
            if ok { Ok(()) } else { Err(Error::Sampling { name, value, expected }) }
        };
        let finite = |x: f32| x.is_finite();
        let Self { temperature: t, top_p: p, repetition_penalty: r, .. } = *self;
        let (f, q) = (self.frequency_penalty, self.presence_penalty);
        known("temperature", t, finite(t) && t >= 0.0, "0 or more")?;
        known("top_p", p, p > 0.0 && p <= 1.0, "above 0, at most 1")?;
        known("repetition_penalty", r, finite(r) && r > 0.0, "above 0")?;
        known("frequency_penalty", f, finite(f), "a finite number")?;
        known("presence_penalty", q, finite(q), "a finite number")
    }

    /// Whether the choice needs nothing but the position of the largest logit.
    pub fn is_plain_greedy(&self) -> bool {
        self.temperature == 0.0
            && self.repetition_penalty == 1.0
            && self.frequency_penalty == 0.0
            && self.presence_penalty == 0.0
    }

    /// The next token. `logits: [vocab_size]`, changed by the penalties; `draw` in `[0, 1)`.
    pub fn choose(&self, logits: &mut [f32], prompt: &[u32], answer: &[u32], draw: f32) -> u32 {
        self.penalize(logits, prompt, answer);
        if self.temperature == 0.0 {
            return argmax(logits);
        }
        let mut ranked: Vec<u32> = (0..logits.len() as u32).collect();
        // Ties go to the lower id, so the order never depends on the sort.
        let by_logit =
            |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if self.top_k > 0 && self.top_k < ranked.len() {
            ranked.select_nth_unstable_by(self.top_k - 1, by_logit);
            ranked.truncate(self.top_k);
        }
        ranked.sort_unstable_by(by_logit);
        let highest = logits[ranked[0] as usize];
        let mut weights: Vec<f64> = ranked
            .iter()
            .map(|id| f64::from((logits[*id as usize] - highest) / self.temperature).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        weights.truncate(nucleus(&weights, f64::from(self.top_p) * total));
        ranked[draw_from(&weights, draw)]
    }

    fn penalize(&self, logits: &mut [f32], prompt: &[u32], answer: &[u32]) {
        if self.repetition_penalty != 1.0 {
            let seen: BTreeSet<u32> = prompt.iter().chain(answer).copied().collect();
            for id in seen {
                if let Some(logit) = logits.get_mut(id as usize) {
                    let factor = self.repetition_penalty;
                    *logit = if *logit > 0.0 { *logit / factor } else { *logit * factor };
                }
            }
        }
        if self.frequency_penalty == 0.0 && self.presence_penalty == 0.0 {
            return;
        }
        let mut present = BTreeSet::new();
        for &id in answer {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit -= self.frequency_penalty;
                if present.insert(id) {
                    *logit -= self.presence_penalty;
                }
            }
        }
    }
}

fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, logit) in logits.iter().enumerate() {
        if *logit > logits[best] || logits[best].is_nan() {
            best = i;
        }
    }
    best as u32
}

/// How many of the sorted weights are needed to reach `enough`, at least one.
fn nucleus(weights: &[f64], enough: f64) -> usize {
    let mut sum = 0.0;
    for (i, weight) in weights.iter().enumerate() {
        sum += weight;
        if sum >= enough {
            return i + 1;
        }
    }
    weights.len()
}

/// The first place where the running sum of weights passes `draw` of their total.
fn draw_from(weights: &[f64], draw: f32) -> usize {
    let target = f64::from(draw) * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    for (i, weight) in weights.iter().enumerate() {
        sum += weight;
        if sum > target {
            return i;
        }
    }
    weights.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(sampling: Sampling, logits: &[f32], draw: f32) -> u32 {
        sampling.choose(&mut logits.to_vec(), &[], &[], draw)
    }

    #[test]
    fn greedy_takes_the_first_of_equal_logits() {
        assert_eq!(choose(Sampling::greedy(), &[1.0, 3.0, 3.0], 0.9), 1);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.0, (3.0f32).ln()]; // 1/4 and 3/4
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let n = 4000;
        let ones = (0..n).filter(|i| choose(sampling, &logits, *i as f32 / n as f32) == 1).count();
        assert!(
            ones.abs_diff(3 * n / 4) <= 1,
            "{ones} of {n}; ln 3 is rounded, which moves one draw"
        );
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [0.0, 1.0, 2.0, 3.0];
        let k = Sampling { temperature: 1.0, top_k: 2, ..Sampling::default() };
        let p = Sampling { temperature: 1.0, top_p: 0.6, ..Sampling::default() };
        for i in 0..100 {
            let draw = i as f32 / 100.0;
            assert!(choose(k, &logits, draw) >= 2);
            assert_eq!(choose(p, &logits, draw), 3, "the top token alone holds 0.64");
        }
    }

    #[test]
    fn penalties_follow_their_definitions() {
        let mut logits = [2.0, -2.0, 1.0, 1.0];
        let sampling = Sampling {
            repetition_penalty: 2.0,
            frequency_penalty: 0.25,
            presence_penalty: 0.5,
            ..Sampling::default()
        };
        sampling.penalize(&mut logits, &[0, 1], &[2, 2]);
        assert_eq!(logits, [1.0, -4.0, 0.5 - 0.5 - 0.5, 1.0]);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let bad = Sampling { top_p: 0.0, ..Sampling::default() };
        assert_eq!(bad.check().unwrap_err().to_string(), "top_p is 0, expected above 0, at most 1");
        assert!(Sampling { temperature: f32::NAN, ..Sampling::default() }.check().is_err());
        assert!(Sampling::default().check().is_ok());
    }
}
