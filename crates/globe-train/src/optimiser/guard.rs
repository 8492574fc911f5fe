//! Steps with a gradient that is not finite are left out, counted, and fatal when they repeat.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Counts of steps left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// In all.
    pub skipped: u64,
    /// Without a good step between.
    pub in_a_row: u64,
}

/// What to do with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Apply it.
    Apply,
    /// Throw the gradient away.
    Skip,
}

impl Guard {
    /// Judges a step by the norm of its gradient.
    ///
    /// # Errors
    /// [`Error::NotFinite`] after more than `max_in_a_row` bad steps without a good one.
    pub fn judge(&mut self, grad_norm: f64, max_in_a_row: u64) -> Result<Verdict> {
        if grad_norm.is_finite() {
            self.in_a_row = 0;
            return Ok(Verdict::Apply);
        }
        self.skipped += 1;
        self.in_a_row += 1;
        if self.in_a_row > max_in_a_row {
            return Err(Error::NotFinite { steps: self.in_a_row, norm: grad_norm });
        }
        Ok(Verdict::Skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_steps_are_counted_and_then_fatal() {
        let mut guard = Guard::default();
        assert_eq!(guard.judge(1.0, 2).unwrap(), Verdict::Apply);
        assert_eq!(guard.judge(f64::NAN, 2).unwrap(), Verdict::Skip);
        assert_eq!(guard.judge(f64::INFINITY, 2).unwrap(), Verdict::Skip);
        assert_eq!(guard.judge(0.0, 2).unwrap(), Verdict::Apply);
        assert_eq!(guard, Guard { skipped: 2, in_a_row: 0 });
        for _ in 0..2 {
            assert_eq!(guard.judge(f64::NAN, 2).unwrap(), Verdict::Skip);
        }
        let error = guard.judge(f64::NAN, 2).unwrap_err();
        assert!(error.to_string().contains("3 steps in a row"), "{error}");
    }
}
