//! TOML to settings, with errors that help.

use std::{fs, path::Path};

use toml::de::{DeTable, DeValue};

use super::{Config, JudgeKind, Weights};
use crate::{Error, Result, rewards::Combination};

/// Names less alike than this are no hint.
const MIN_LIKENESS: f64 = 0.7;

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`], and those of [`Config::parse`].
    pub fn open(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).map_err(Error::io("cannot read the configuration", path))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads TOML; `file` names it in errors. Keys that are left out keep their defaults.
    ///
    /// # Errors
    /// [`Error::Config`] for bad TOML, unknown keys, wrong types and values that make no sense.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let fail = |line: Option<usize>, reason: String| Error::Config {
            at: line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}")),
            reason,
        };
        let line_of = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let toml_error = |e: toml::de::Error| {
            fail(e.span().map(|span| line_of(span.start)), e.message().trim().to_owned())
        };
        let table = DeTable::parse(text).map_err(toml_error)?;
        if let Some((at, reason)) = unknown_key(table.get_ref()) {
            return Err(fail(Some(line_of(at)), reason));
        }
        let config: Self = toml::from_str(text).map_err(toml_error)?;
        config.check().map_err(|reason| fail(None, reason))?;
        Ok(config)
    }

    /// All keys with documentation and values, as in the shipped files.
    pub fn documented(&self) -> String {
        let table = toml::Table::try_from(self).unwrap_or_default();
        let (mut out, mut section) = (String::new(), "");
        for key in Self::keys() {
            if key.section != section {
                section = key.section;
                let gap = if out.is_empty() { "" } else { "\n" };
                out.push_str(&format!("{gap}[{section}]\n"));
            }
            key.doc.lines().for_each(|line| out.push_str(&format!("# {line}\n")));
            let value = table.get(section).and_then(|s| s.get(key.name));
            let value = value.map(toml::Value::to_string).unwrap_or_default();
            out.push_str(&format!("{} = {value}\n", key.name));
        }
        out
    }

    /// Rules that hold between values.
    fn check(&self) -> std::result::Result<(), String> {
        let (rollout, training, rewards) = (&self.rollout, &self.training, &self.rewards);
        let positive = [
            ("rollout.prompts", rollout.prompts as f64),
            ("rollout.max_tokens", rollout.max_tokens as f64),
            ("rollout.temperature", rollout.temperature),
            ("rollout.top_p", rollout.top_p),
            ("training.steps", training.steps as f64),
            ("training.micro_batch", training.micro_batch as f64),
            ("training.max_packed_tokens", training.max_packed_tokens as f64),
            ("training.steps_per_generation", training.steps_per_generation as f64),
            ("training.iterations", training.iterations as f64),
            ("optimiser.lr", self.optimiser.lr),
            ("optimiser.eps", self.optimiser.eps),
            ("rewards.geo_tau_km", rewards.geo_tau_km),
            ("rewards.judge_timeout_s", rewards.judge_timeout_s),
            ("checkpoint.every", self.checkpoint.every as f64),
            ("loss.sampler_max", self.loss.sampler_max),
            ("lora.rank", self.lora.rank as f64),
        ];
        for (key, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return Err(format!("{key} is {value}; it must be above 0"));
            }
        }
        let shares = [
            ("rollout.top_p", rollout.top_p, 1.0),
            ("rewards.geo_alpha", rewards.geo_alpha, 1.0),
            ("data.eval_fraction", self.data.eval_fraction, 0.9),
            ("optimiser.warmup", self.optimiser.warmup, 1.0),
            ("optimiser.beta1", self.optimiser.beta1, 0.999_999),
            ("optimiser.beta2", self.optimiser.beta2, 0.999_999),
            ("loss.epsilon_low", self.loss.epsilon_low, 1.0),
            ("training.label_smoothing", training.label_smoothing, 0.9),
        ];
        for (key, value, most) in shares {
            if !(0.0..=most).contains(&value) {
                return Err(format!("{key} is {value}; it must be between 0 and {most}"));
            }
        }
        let not_negative = [
            ("loss.epsilon_high", self.loss.epsilon_high),
            ("loss.beta", self.loss.beta),
            ("loss.delta", self.loss.delta),
            ("optimiser.weight_decay", self.optimiser.weight_decay),
            ("optimiser.max_grad_norm", self.optimiser.max_grad_norm),
        ];
        for (key, value) in not_negative {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(format!("{key} is {value}; it must not be negative"));
            }
        }
        self.check_batches()?;
        self.check_rewards()
    }

    fn check_batches(&self) -> std::result::Result<(), String> {
        let (rollout, training) = (&self.rollout, &self.training);
        if rollout.group_size < 2 {
            return Err(format!(
                "rollout.group_size is {}; answers are compared within a group, so it must be at \
                 least 2",
                rollout.group_size
            ));
        }
        let answers = rollout.prompts * rollout.group_size;
        if !answers.is_multiple_of(training.steps_per_generation) {
            return Err(format!(
                "training.steps_per_generation {} does not divide the {answers} answers of a \
                 generation (rollout.prompts * rollout.group_size)",
                training.steps_per_generation
            ));
        }
        let is_full = self.model.weights == Weights::Full;
        if !is_full && self.lora.targets.is_empty() {
            return Err("lora.targets is empty: nothing would be trained".into());
        }
        if !is_full && self.model.train_vision {
            return Err(
                "model.train_vision is true, but an adapter leaves the vision tower as it \
                 is; set it to false, or model.weights to \"full\""
                    .into(),
            );
        }
        if is_full && !self.model.adapter.is_empty() {
            return Err("model.adapter is set, but model.weights = \"full\" starts from the \
                 weights of model.path; merge it first with `globe export`"
                .into());
        }
        Ok(())
    }

    fn check_rewards(&self) -> std::result::Result<(), String> {
        let rewards = &self.rewards;
        let weights = [rewards.geo, rewards.visual, rewards.locatability, rewards.format];
        if !weights.iter().all(|w| w.is_finite()) || weights.iter().all(|&w| w == 0.0) {
            return Err("the weights of all rewards are 0: nothing would be learnt".into());
        }
        let needs_judge = rewards.locatability != 0.0 || rewards.visual_verify;
        if needs_judge && rewards.judge == JudgeKind::None {
            return Err("rewards.judge is `none`, but rewards.locatability is not 0 or \
                 rewards.visual_verify is on"
                .into());
        }
        if rewards.judge == JudgeKind::Adapter && rewards.judge_adapter.is_empty() {
            return Err("rewards.judge is `adapter`, but rewards.judge_adapter is empty".into());
        }
        if rewards.judge == JudgeKind::Adapter && self.model.weights == Weights::Full {
            return Err(
                "rewards.judge is `adapter`, which judges with the base of the policy, but \
                 model.weights = \"full\" changes that base; use a server"
                    .into(),
            );
        }
        if rewards.combination == Combination::Gated && rewards.format < 0.0 {
            return Err("rewards.format is negative with rewards.combination `gated`".into());
        }
        Ok(())
    }
}

/// Where the first unknown key stands, and what to say about it.
fn unknown_key(table: &DeTable<'_>) -> Option<(usize, String)> {
    let keys = Config::keys();
    for (section, value) in table {
        let name = section.get_ref().as_ref();
        if !keys.iter().any(|k| k.section == name) {
            let owner = keys.iter().find(|k| k.name == name);
            let sections = keys.iter().map(|k| k.section);
            let hint = owner
                .map(|k| format!("; it belongs into [{}]", k.section))
                .unwrap_or_else(|| nearest(name, sections, "section"));
            return Some((section.span().start, format!("unknown section or key `{name}`{hint}")));
        }
        let DeValue::Table(section_table) = value.get_ref() else {
            continue;
        };
        for key in section_table.keys() {
            let key_name = key.get_ref().as_ref();
            if keys.iter().any(|k| k.section == name && k.name == key_name) {
                continue;
            }
            let elsewhere = keys.iter().find(|k| k.name == key_name);
            let own = keys.iter().filter(|k| k.section == name).map(|k| k.name);
            let hint = elsewhere
                .map(|k| format!("; it belongs into [{}]", k.section))
                .unwrap_or_else(|| nearest(key_name, own, "key"));
            let reason = format!("unknown key `{key_name}` in [{name}]{hint}");
            return Some((key.span().start, reason));
        }
    }
    None
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>, what: &str) -> String {
    let best = known
        .map(|k| (strsim::jaro_winkler(name, k), k))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness >= MIN_LIKENESS);
    best.map(|(_, k)| format!("; the nearest {what} is `{k}`")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
