//! From logits to the next token on the host: penalties, temperature, top-k, top-p, one draw.

use std::collections::BTreeSet;

use globe_ops::SampleOptions;
use globe_rng::Draw;
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

    /// Whether tokens seen before count.
    pub fn has_penalties(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.frequency_penalty != 0.0
            || self.presence_penalty != 0.0
    }

    /// The same for the kernel `sample`.
    pub fn on_device(&self, seed: u64) -> SampleOptions {
        SampleOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition: self.repetition_penalty,
            frequency: self.frequency_penalty,
            presence: self.presence_penalty,
            seed,
        }
    }

    /// The next token and the logarithm of its probability under penalties and temperature alone.
    /// `logits: [vocab_size]`, changed in place.
    ///
    /// The draw is the Gumbel-max trick (Gumbel 1954; Maddison et al., arXiv 1411.0030): the largest
    /// of `logit / temperature - ln(-ln u)` is distributed as the softmax. The kernel `sample` does
    /// the same.
    pub fn choose(
        &self,
        logits: &mut [f32],
        prompt: &[u32],
        answer: &[u32],
        draw: &Draw,
    ) -> (u32, f32) {
        self.penalize(logits, prompt, answer);
        let greedy = self.temperature == 0.0;
        if !greedy {
            let heat = 1.0 / self.temperature;
            logits.iter_mut().for_each(|logit| *logit *= heat);
        }
        let best = argmax(logits);
        let highest = logits[best as usize];
        let weight = |logit: f32| f64::from(logit - highest).exp();
        let total: f64 = logits.iter().map(|logit| weight(*logit)).sum();
        let id = if greedy { best } else { self.draw(logits, weight, draw) };
        (id, logits[id as usize] - highest - total.ln() as f32)
    }

    /// The token that wins the draw among those that top-k and top-p keep.
    fn draw(&self, logits: &[f32], weight: impl Fn(f32) -> f64, draw: &Draw) -> u32 {
        let mut floor = f32::NEG_INFINITY;
        if (1..logits.len()).contains(&self.top_k) || self.top_p < 1.0 {
            let mut sorted = logits.to_vec();
            sorted.sort_unstable_by(|a, b| b.total_cmp(a));
            if (1..logits.len()).contains(&self.top_k) {
                floor = sorted[self.top_k - 1];
                sorted.retain(|logit| *logit >= floor);
            }
            if self.top_p < 1.0 {
                floor = nucleus(&sorted, weight, f64::from(self.top_p));
            }
        }
        let (mut best, mut winner) = (f32::NEG_INFINITY, 0);
        for (quad, logits) in logits.chunks(4).enumerate() {
            if logits.iter().all(|logit| *logit < floor) {
                continue;
            }
            let words = draw.words(quad as u32);
            for (j, logit) in logits.iter().enumerate().filter(|(_, logit)| **logit >= floor) {
                let noisy = logit + gumbel(words[j]);
                if noisy > best {
                    (best, winner) = (noisy, (4 * quad + j) as u32);
                }
            }
        }
        winner
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

/// Place of the largest logit, the first of equals.
pub(crate) fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, logit) in logits.iter().enumerate() {
        if *logit > logits[best] || logits[best].is_nan() {
            best = i;
        }
    }
    best as u32
}

/// The smallest logit of the fewest, largest first, that hold `share` of the probability.
fn nucleus(sorted: &[f32], weight: impl Fn(f32) -> f64, share: f64) -> f32 {
    let total: f64 = sorted.iter().map(|logit| weight(*logit)).sum();
    let mut sum = 0.0;
    for logit in sorted {
        sum += weight(*logit);
        if sum >= share * total {
            return *logit;
        }
    }
    f32::NEG_INFINITY
}

/// A standard Gumbel number from the upper bits of a random word.
fn gumbel(word: u32) -> f32 {
    let (k, steps) = ((word >> 9) as f32, (1u32 << 23) as f32);
    let (u, lack) = ((k + 0.5) / steps, (steps - 0.5 - k) / steps);
    // As in `shared/sampling.wgsl`, which cannot trust a logarithm near 1.
    let near = lack * (1.0 + lack * (1.0 / 2.0 + lack * (1.0 / 3.0 + lack / 4.0)));
    let exponential = if lack < 1.0 / 64.0 { near } else { -u.ln() };
    -exponential.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(sampling: Sampling, logits: &[f32], position: u32) -> u32 {
        let draw = Draw { seed: 7, sample: 0, position };
        sampling.choose(&mut logits.to_vec(), &[], &[], &draw).0
    }

    #[test]
    fn gumbel_numbers_are_exact_at_both_ends() {
        for word in
            [0, 1 << 9, 0x7fff_fe00, 0xf800_0000, 0xfbff_fe00, 0xfc00_0000, 0xffff_fc00, u32::MAX]
        {
            let u = (f64::from(word >> 9) + 0.5) / f64::from(1 << 23);
            let exact = -(-u.ln()).ln();
            let error = (f64::from(gumbel(word)) - exact).abs();
            assert!(error <= 1e-6 * exact.abs().max(1.0), "{word:#x}: off by {error}");
        }
    }

    #[test]
    fn greedy_takes_the_first_of_equal_logits() {
        assert_eq!(choose(Sampling::greedy(), &[1.0, 3.0, 3.0], 9), 1);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.0, (3.0f32).ln()]; // 1/4 and 3/4
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let n = 20_000;
        let ones = (0..n).filter(|i| choose(sampling, &logits, *i) == 1).count() as f64;
        // Four standard deviations of a binomial.
        let deviation = (f64::from(n) * 0.25 * 0.75).sqrt();
        assert!((ones - 0.75 * f64::from(n)).abs() < 4.0 * deviation, "{ones} of {n}");
    }

    #[test]
    fn the_logarithm_is_that_of_the_softmax() {
        let sampling = Sampling { temperature: 0.5, ..Sampling::default() };
        let draw = Draw { seed: 1, sample: 2, position: 3 };
        let (id, logp) = sampling.choose(&mut [0.0, 0.5 * (3.0f32).ln()], &[], &[], &draw);
        let expected = [0.25f32, 0.75][id as usize].ln();
        assert!((logp - expected).abs() < 1e-6, "{logp}");
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [0.0, 1.0, 2.0, 3.0];
        let k = Sampling { temperature: 1.0, top_k: 2, ..Sampling::default() };
        let p = Sampling { temperature: 1.0, top_p: 0.6, ..Sampling::default() };
        for i in 0..100 {
            assert!(choose(k, &logits, i) >= 2);
            assert_eq!(choose(p, &logits, i), 3, "the top token alone holds 0.64");
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
