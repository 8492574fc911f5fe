//! Medians.

use serde::{Deserialize, Serialize};

/// Several measurements of one thing, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// The middle one.
    pub median: f64,
    /// Half of the distance between the lower and the upper quartile.
    pub spread: f64,
    /// The smallest.
    pub best: f64,
}

impl Stats {
    /// Of at least one measurement; `globe bench` takes the same quartiles.
    #[cfg(any(feature = "llama", feature = "candle", test))]
    pub fn new(mut times: Vec<f64>) -> Self {
        times.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        Self { median: at(0.5), spread: (at(0.75) - at(0.25)) / 2.0, best: times[0] }
    }
}

/// How fast something went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Of one prompt, or of one step of all answers.
    pub seconds: Stats,
    /// Of all answers together.
    pub tokens_per_second: f64,
}

impl Rate {
    /// Of `tokens` tokens in each of the measurements.
    #[cfg(any(feature = "llama", feature = "candle", test))]
    pub fn new(tokens: usize, times: Vec<f64>) -> Self {
        let seconds = Stats::new(times);
        Self { seconds, tokens_per_second: tokens as f64 / seconds.median }
    }

    /// The spread, as tokens per second.
    pub fn spread(&self) -> f64 {
        self.tokens_per_second * self.seconds.spread / self.seconds.median
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_median() {
        let rate = Rate::new(10, vec![9.0, 2.0, 1.0, 3.0, 2.5]);
        assert_eq!((rate.seconds.median, rate.seconds.spread, rate.seconds.best), (2.5, 0.5, 1.0));
        assert_eq!((rate.tokens_per_second, rate.spread()), (4.0, 0.8));
    }
}
