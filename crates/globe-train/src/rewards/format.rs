//! Does the answer keep to the contract?

use super::{Attempt, Reward, read_answer};
use crate::Result;

pub(super) const NAME: &str = "format";

/// 1 for one thinking block followed by one answer block of two lines and nothing else, else 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Format;

impl Reward for Format {
    fn name(&self) -> &str {
        NAME
    }

    fn score(&mut self, attempts: &[Attempt<'_>]) -> Result<Vec<Option<f64>>> {
        let score = |a: &Attempt<'_>| f64::from(u8::from(read_answer(a.text).well_formed));
        Ok(attempts.iter().map(|a| Some(score(a))).collect())
    }
}
