//! What differs between two configurations, to decide whether a run may go on.

use super::Config;

/// One setting that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `section.key`.
    pub key: String,
    /// Value of the checkpoint, as TOML.
    pub before: String,
    /// Value now.
    pub after: String,
    /// True when it cannot change what is learnt.
    pub harmless: bool,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.before, self.after)
    }
}

/// Sections and keys that only say where and how often to write, or how long to wait.
const HARMLESS: &[&str] = &[
    "run.output",
    "checkpoint.",
    "watch.",
    "model.device",
    "rewards.judge_attempts",
    "rewards.judge_parallel",
    "rewards.judge_timeout_s",
    "rewards.judge_url",
];

impl Config {
    /// What changes from `self` to `new`, in the order of the keys.
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        let [before, after] = [self, new].map(|c| toml::Table::try_from(c).unwrap_or_default());
        let value = |table: &toml::Table, section: &str, name: &str| {
            table.get(section).and_then(|s| s.get(name)).map(toml::Value::to_string)
        };
        let mut out = Vec::new();
        for key in Self::keys() {
            let old = value(&before, key.section, key.name).unwrap_or_default();
            let new = value(&after, key.section, key.name).unwrap_or_default();
            if old != new {
                let key = format!("{}.{}", key.section, key.name);
                let harmless = HARMLESS.iter().any(|h| key.starts_with(h));
                out.push(Difference { key, before: old, after: new, harmless });
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_key_and_both_values() {
        let before = Config::default();
        assert_eq!(before.differences(&before), []);
        let mut after = before.clone();
        after.loss.beta = 0.001;
        after.watch.samples = 9;
        after.rollout.group_size = 16;
        let got = before.differences(&after);
        let shown: Vec<String> = got.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["rollout.group_size: 8 -> 16", "loss.beta: 0.0 -> 0.001", "watch.samples: 4 -> 9"]
        );
        assert_eq!(got.iter().map(|d| d.harmless).collect::<Vec<_>>(), [false, false, true]);
    }
}
