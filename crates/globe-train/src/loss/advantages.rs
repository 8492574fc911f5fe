//! Rewards of groups of answers to advantages.

use serde::{Deserialize, Serialize};

/// Added to a standard deviation before dividing by it.
pub const STD_EPS: f64 = 1e-4;

/// What the centred rewards are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// The standard deviation of the group.
    #[default]
    Group,
    /// The standard deviation of all rewards.
    Batch,
    /// Nothing.
    None,
}

/// Advantages of all answers and what they were made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages {
    /// One per answer; 0 for an answer without a reward.
    pub values: Vec<f64>,
    /// True per group whose rewards do not differ, so that it teaches nothing.
    pub zero_std: Vec<bool>,
    /// Mean of all rewards that exist; NaN without any.
    pub mean: f64,
    /// Standard deviation of all rewards that exist.
    pub std: f64,
}

/// `(R - mean of the group) / (s + 1e-4)`, `s` by `scaling`, for groups of `group_size` in order.
///
/// An answer whose reward is `None` gets 0 and counts in no mean or deviation. Deviations divide by
/// `n - 1`; that of a single value is 0. A last group may be smaller.
pub fn advantages(rewards: &[Option<f64>], group_size: usize, scaling: Scaling) -> Advantages {
    let all: Vec<f64> = rewards.iter().flatten().copied().collect();
    let std_all = std_unbiased(&all);
    let mut out = Advantages {
        values: Vec::with_capacity(rewards.len()),
        zero_std: Vec::new(),
        mean: mean(&all),
        std: std_all,
    };
    for group in rewards.chunks(group_size.max(1)) {
        let known: Vec<f64> = group.iter().flatten().copied().collect();
        let (mean, std) = (mean(&known), std_unbiased(&known));
        let scale = match scaling {
            Scaling::Group => std + STD_EPS,
            Scaling::Batch => std_all + STD_EPS,
            Scaling::None => 1.0,
        };
        out.values.extend(group.iter().map(|r| r.map_or(0.0, |r| (r - mean) / scale)));
        // torch.isclose against zero.
        out.zero_std.push(std <= 1e-8);
    }
    out
}

/// NaN without values.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// `sqrt(sum (x - mean)^2 / (n - 1))`; 0 for fewer than two values.
pub fn std_unbiased(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    let sum: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    (sum / (values.len() - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            assert!((g - w).abs() < 1e-9, "{i}: {g} {w}");
        }
    }

    const GROUP: [Option<f64>; 4] = [Some(1.0), Some(0.2), Some(0.0), Some(1.0)];

    #[test]
    fn one_group_matches_the_published_values() {
        let got = advantages(&GROUP, 4, Scaling::Group);
        assert_close(
            &got.values,
            &[0.855365118522, -0.665283981073, -1.045446255972, 0.855365118522],
        );
        assert_eq!(got.zero_std, [false]);
        assert_close(&[got.mean], &[0.55]);
    }

    #[test]
    fn scaling_changes_only_the_divisor() {
        let rewards: Vec<_> = GROUP.into_iter().chain([Some(0.5); 4]).collect();
        let plain = advantages(&rewards, 4, Scaling::None);
        assert_close(&plain.values[..4], &[0.45, -0.35, -0.55, 0.45]);
        let batch = advantages(&rewards, 4, Scaling::Batch);
        let scaled: Vec<f64> = plain.values.iter().map(|a| a / (plain.std + STD_EPS)).collect();
        assert_close(&batch.values, &scaled);
        assert_eq!(batch.zero_std, [false, true]);
        assert_close(&batch.values[4..], &[0.0; 4]);
    }

    #[test]
    fn missing_rewards_count_nowhere() {
        let rewards = [Some(1.0), None, Some(0.0), None, None, None];
        let got = advantages(&rewards, 3, Scaling::Group);
        let s = 0.5f64.sqrt() + STD_EPS;
        assert_close(&got.values, &[0.5 / s, 0.0, -0.5 / s, 0.0, 0.0, 0.0]);
        assert_eq!(got.zero_std, [false, true]);
        assert!(advantages(&[], 3, Scaling::Group).values.is_empty());
        assert_close(&advantages(&[Some(3.0)], 1, Scaling::Group).values, &[0.0]);
    }
}
