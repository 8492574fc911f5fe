//! Medians.

use serde::Serialize;

/// Several measurements of one thing, seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// The middle one.
    pub median: f64,
    /// Half of the distance between the lower and the upper quartile.
    pub spread: f64,
    /// The smallest.
    pub best: f64,
}

impl Stats {
    /// Of at least one measurement.
    pub fn new(mut times: Vec<f64>) -> Self {
        times.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        Self { median: at(0.5), spread: (at(0.75) - at(0.25)) / 2.0, best: times[0] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_outliers_do_not_spread() {
        let stats = Stats::new(vec![9.0, 2.0, 1.0, 3.0, 2.5]);
        assert_eq!((stats.median, stats.best, stats.spread), (2.5, 1.0, 0.5));
        let one = Stats::new(vec![4.0]);
        assert_eq!((one.median, one.spread), (4.0, 0.0));
    }
}
