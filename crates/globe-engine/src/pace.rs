//! How many steps go to the device in one submission.

use std::time::Duration;

use web_time::Instant;

/// Steps between two looks at the tokens: enough to hide a look, few enough to stop soon.
pub(crate) const STEPS_PER_LOOK: usize = 8;
/// Work that is handed over at once, at most: a page draws between two submissions, and a driver ends a program
/// whose submission takes seconds.
const SUBMISSION: Duration = Duration::from_millis(32);

/// Short steps share a submission, which costs a browser as much as they do. How long a step takes is known from
/// the looks that arrived.
#[derive(Default)]
pub(crate) struct Pace {
    /// Of the last two looks. One alone may seem short: it was there already when the host was late.
    step: [Option<Duration>; 2],
    looked: Option<(Instant, usize)>,
}

impl Pace {
    /// Steps of the next submission: one as long as nothing is known.
    pub(crate) fn steps(&self) -> usize {
        let [Some(last), Some(before)] = self.step else { return 1 };
        let step = last.max(before).max(Duration::from_nanos(1));
        (SUBMISSION.as_nanos() / step.as_nanos()).clamp(1, STEPS_PER_LOOK as u128) as usize
    }

    /// Whether all steps up to the next look share one submission.
    pub(crate) fn is_quick(&self) -> bool {
        self.steps() == STEPS_PER_LOOK
    }

    /// A look arrived `at` a moment; `steps` of this answer were done by then.
    pub(crate) fn arrived(&mut self, at: Instant, steps: usize) {
        if let Some((before, done)) = self.looked.filter(|(_, done)| *done < steps) {
            let step = at.duration_since(before) / (steps - done) as u32;
            self.step = [Some(step), self.step[0]];
        }
        self.looked = Some((at, steps));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(milliseconds: &[u64]) -> Pace {
        let mut pace = Pace::default();
        let mut at = Instant::now();
        pace.arrived(at, 0);
        for (i, wait) in milliseconds.iter().enumerate() {
            at += Duration::from_millis(*wait);
            pace.arrived(at, (i + 1) * STEPS_PER_LOOK);
        }
        pace
    }

    #[test]
    fn short_steps_share_a_submission_and_long_ones_do_not() {
        assert_eq!(after(&[32, 32]).steps(), 8);
        assert_eq!(after(&[80, 80]).steps(), 3);
        assert_eq!(after(&[1000, 1000]).steps(), 1);
    }

    #[test]
    fn nothing_is_shared_before_two_looks_are_known() {
        assert_eq!(after(&[]).steps(), 1);
        assert_eq!(after(&[8]).steps(), 1);
        assert_eq!(after(&[8, 8]).steps(), 8);
    }

    #[test]
    fn a_late_host_does_not_make_steps_seem_short() {
        assert_eq!(after(&[800, 3000, 0]).steps(), 1);
        assert_eq!(after(&[800, 3000, 0, 800]).steps(), 1);
    }

    #[test]
    fn another_answer_goes_on_at_the_same_pace() {
        let mut pace = after(&[8, 8]);
        pace.arrived(Instant::now() + Duration::from_secs(9), 0);
        assert_eq!(pace.steps(), 8);
    }
}
