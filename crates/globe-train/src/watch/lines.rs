//! A line per step, for logs and pipes.

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    Error, Result,
    trainer::{Observer, StepStats, TrainEvent},
};

/// What a line shows, if the step has it.
const SHOWN: &[(&str, &str)] = &[
    ("reward", "reward"),
    ("loss", "loss"),
    ("kl", "kl"),
    ("entropy", "entropy"),
    ("clip_ratio/region_mean", "clipped"),
    ("completions/mean_length", "length"),
    ("frac_reward_zero_std", "equal"),
    ("grad_norm", "norm"),
    ("eval_loss", "eval"),
    ("accuracy", "accuracy"),
];

/// Plain lines to any writer.
pub struct Lines<W> {
    out: W,
    started: Instant,
    first_step: u64,
    total: u64,
}

impl<W: Write> Lines<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, started: Instant::now(), first_step: 0, total: 0 }
    }

    fn line(&self, stats: &StepStats) -> String {
        let mut line = format!("step {}/{}", stats.step, self.total);
        for (name, label) in SHOWN {
            if let Some(value) = stats.values.get(*name) {
                line.push_str(&format!("  {label} {}", short(*value)));
            }
        }
        let done = stats.step.saturating_sub(self.first_step);
        if let Some(left) =
            remaining(self.started.elapsed(), done, self.total - stats.step.min(self.total))
        {
            line.push_str(&format!("  left {}", clock(left)));
        }
        line
    }
}

impl<W: Write> Observer for Lines<W> {
    fn on(&mut self, event: &TrainEvent<'_>) -> Result<()> {
        let line = match event {
            TrainEvent::Started { step, total, weights } => {
                (self.started, self.first_step, self.total) = (Instant::now(), *step, *total);
                let weights: Vec<_> = weights.iter().map(|(n, w)| format!("{n} {w}")).collect();
                let rewards = if weights.is_empty() {
                    String::new()
                } else {
                    format!(", rewards: {}", weights.join(", "))
                };
                format!("step {step} of {total}{rewards}")
            }
            TrainEvent::Step(stats) => self.line(stats),
            TrainEvent::Checkpoint(path) => format!("saved {}", path.display()),
            TrainEvent::Warning(text) => format!("warning: {text}"),
            TrainEvent::Ended { step, complete: true } => format!("done after step {step}"),
            TrainEvent::Ended { step, .. } => format!("stopped after step {step}"),
            TrainEvent::Samples { .. } => return Ok(()),
        };
        let path = PathBuf::from("standard output");
        writeln!(self.out, "{line}").map_err(Error::io("cannot write to", path))
    }
}

/// Four significant digits, small and large numbers by power of ten.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        a if !(1e-3..1e5).contains(&a) => format!("{value:.2e}"),
        a if a >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.3}"),
    }
}

/// Time for `left` steps at the pace of `done` steps.
pub(super) fn remaining(elapsed: Duration, done: u64, left: u64) -> Option<Duration> {
    let pace_s = elapsed.as_secs_f64() / done as f64;
    (done > 0).then(|| Duration::from_secs_f64(pace_s * left as f64))
}

/// `1h02m`, `3m04s` or `5s`.
pub(super) fn clock(time: Duration) -> String {
    let s = time.as_secs();
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;

    #[test]
    fn lines_say_what_happens() {
        let mut lines = Lines::new(Vec::new());
        let values = BTreeMap::from([
            ("reward".to_owned(), 1.2345),
            ("kl".to_owned(), 1e-6),
            ("completions/mean_length".to_owned(), 181.4),
        ]);
        let stats = StepStats { step: 2, values };
        let weights = [("geo".to_owned(), 1.0), ("visual".to_owned(), 0.5)];
        for event in [
            TrainEvent::Started { step: 1, total: 2, weights: &weights },
            TrainEvent::Step(&stats),
            TrainEvent::Checkpoint(Path::new("x/step-2")),
            TrainEvent::Warning("odd"),
            TrainEvent::Ended { step: 2, complete: true },
        ] {
            lines.on(&event).unwrap();
        }
        let text = String::from_utf8(lines.out).unwrap();
        assert_eq!(
            text,
            "step 1 of 2, rewards: geo 1, visual 0.5\n\
             step 2/2  reward 1.234  kl 1.00e-6  length 181  left 0s\n\
             saved x/step-2\nwarning: odd\ndone after step 2\n"
        );
    }

    #[test]
    fn times_and_numbers_are_short() {
        let times = [5, 184, 3720].map(|s| clock(Duration::from_secs(s)));
        assert_eq!(times, ["5s", "3m04s", "1h02m"]);
        assert_eq!(remaining(Duration::from_secs(10), 0, 5), None);
        assert_eq!(remaining(Duration::from_secs(10), 5, 5), Some(Duration::from_secs(10)));
        assert_eq!([0.0, -0.5, 1e9].map(short), ["0", "-0.500", "1.00e9"]);
        assert_eq!(short(f64::NAN), "NaN");
    }
}
