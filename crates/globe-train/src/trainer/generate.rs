//! Sampling and scoring: from the data to a buffer of answers with advantages.

use std::{collections::BTreeMap, time::Instant};

use globe_rng::derive;

use super::{
    buffer::{Answer, Asked, Bits, Buffer},
    event::{AnswerReport, SampleReport},
};
use crate::{
    Error, Policy, Prompt, Result, Sampling, Sequence, Side, Stop,
    config::{Config, OldLogps},
    data::{Sample, Stream},
    loss::{Advantages, advantages, std_unbiased},
    rewards::{Attempt, RewardSet, Scores},
};

/// Purpose of the random numbers that sample answers.
const ROLLOUT: u32 = 10;

/// Everything a generation needs.
pub(super) struct Generator<'a> {
    pub config: &'a Config,
    pub policy: &'a mut dyn Policy,
    pub stream: &'a mut Stream,
    pub rewards: &'a mut RewardSet,
    pub step: u64,
}

/// Prompts with scored answers, before advantages.
#[derive(Default)]
struct Round {
    samples: Vec<Sample>,
    answers: Vec<Vec<Answer>>,
}

impl Generator<'_> {
    /// Draws prompts, samples answers, scores them.
    pub fn run(&mut self) -> Result<Buffer> {
        let started = Instant::now();
        let (round, names, rounds) = self.rounds()?;
        let group_size = self.config.rollout.group_size;
        let mut answers: Vec<Answer> = Vec::new();
        for (i, group) in round.answers.into_iter().enumerate() {
            answers.extend(group.into_iter().map(|answer| Answer { prompt: i, ..answer }));
        }
        let totals: Vec<_> = answers.iter().map(|a| a.total).collect();
        let made = advantages(&totals, group_size, self.config.loss.scale_rewards);
        for (answer, advantage) in answers.iter_mut().zip(&made.values) {
            answer.advantage = *advantage;
        }
        let prompts = round.samples.iter().map(asked).collect::<Result<Vec<_>>>()?;
        let mut buffer = Buffer { prompts, answers, made_at: self.step, ..Buffer::default() };
        let sampled_s = started.elapsed().as_secs_f64();
        self.keep_logps(&mut buffer)?;
        let mut values = values(&buffer.answers, &names, &made);
        let tokens: usize = buffer.answers.iter().map(|a| a.ids.len()).sum();
        values.insert("rollout/rounds".into(), rounds as f64);
        values.insert("time/rollout_s".into(), sampled_s);
        values.insert("time/rollout_tokens_per_s".into(), tokens as f64 / sampled_s.max(1e-9));
        (buffer.names, buffer.values) = (names, values);
        Ok(buffer)
    }

    /// Generations until enough groups differ in reward, or as many as allowed.
    fn rounds(&mut self) -> Result<(Round, Vec<String>, usize)> {
        let rollout = &self.config.rollout;
        let (wanted, dynamic) = (rollout.prompts, rollout.dynamic_sampling);
        let most = if dynamic { rollout.dynamic_rounds.max(1) } else { 1 };
        let (mut good, mut equal) = (Round::default(), Round::default());
        let mut names = Vec::new();
        let mut rounds = 0;
        while rounds < most && good.samples.len() < wanted {
            let missing = wanted - good.samples.len();
            let (round, found) = self.round(missing, (rounds * wanted) as u32)?;
            names = found;
            for (sample, group) in round.samples.into_iter().zip(round.answers) {
                let rewards: Vec<f64> = group.iter().filter_map(|a| a.total).collect();
                let differs = !dynamic || std_unbiased(&rewards) > 1e-8;
                let side = if differs { &mut good } else { &mut equal };
                side.samples.push(sample);
                side.answers.push(group);
            }
            rounds += 1;
        }
        let missing = wanted - good.samples.len();
        good.samples.extend(equal.samples.into_iter().take(missing));
        good.answers.extend(equal.answers.into_iter().take(missing));
        Ok((good, names, rounds))
    }

    fn round(&mut self, n_prompts: usize, first_seed: u32) -> Result<(Round, Vec<String>)> {
        let mut samples = Vec::with_capacity(n_prompts);
        for _ in 0..n_prompts {
            samples.push(self.stream.next_sample()?);
        }
        let prompts = samples.iter().map(|s| Ok(asked(s)?.prompt())).collect::<Result<Vec<_>>>()?;
        let seed = |i: usize| {
            derive(self.config.run.seed, self.step as u32, first_seed + i as u32, ROLLOUT)
        };
        let seeds: Vec<u64> = (0..prompts.len()).map(seed).collect();
        let groups = self.policy.rollout(&prompts, &seeds, &sampling(self.config))?;
        check_groups(&groups, prompts.len(), self.config.rollout.group_size)?;
        let mut answers: Vec<Vec<Answer>> = groups
            .into_iter()
            .map(|group| group.into_iter().map(|c| Answer::new(0, c)).collect())
            .collect();
        let scores = self.score(&samples, &answers)?;
        for (answer, i) in answers.iter_mut().flatten().zip(0..) {
            answer.parts = scores.parts[i].clone();
            answer.total = scores.totals[i];
        }
        Ok((Round { samples, answers }, scores.names))
    }

    fn score(&mut self, samples: &[Sample], answers: &[Vec<Answer>]) -> Result<Scores> {
        let attempts: Vec<Attempt<'_>> = samples
            .iter()
            .zip(answers)
            .flat_map(|(sample, group)| {
                group.iter().map(move |answer| Attempt {
                    sample,
                    text: &answer.text,
                    truncated: answer.stop == Stop::Length,
                })
            })
            .collect();
        self.rewards.score(&attempts)
    }

    /// Passes whose results serve several optimiser steps. A buffer of one step needs none: `old`
    /// is the policy itself, and the reference is asked micro-batch by micro-batch.
    fn keep_logps(&mut self, buffer: &mut Buffer) -> Result<()> {
        let config = self.config;
        if config.training.steps_per_generation * config.training.iterations <= 1 {
            return Ok(());
        }
        let prompts: Vec<Prompt> = buffer.prompts.iter().map(Asked::prompt).collect();
        let temperature = config.rollout.temperature;
        for chunk in buffer.answers.chunks_mut(config.training.micro_batch) {
            if config.loss.old_logps == OldLogps::Sampling {
                chunk.iter_mut().for_each(|a| a.old = Some(Bits(a.sampling.clone())));
            } else {
                let old = self.pass(&prompts, chunk, temperature, Side::Trained)?;
                chunk.iter_mut().zip(old).for_each(|(a, logp)| a.old = Some(Bits(logp)));
            }
            if config.loss.beta != 0.0 {
                let reference = self.pass(&prompts, chunk, temperature, Side::Reference)?;
                chunk.iter_mut().zip(reference).for_each(|(a, l)| a.reference = Some(Bits(l)));
            }
        }
        Ok(())
    }

    fn pass(
        &mut self,
        prompts: &[Prompt],
        answers: &[Answer],
        temperature: f64,
        side: Side,
    ) -> Result<Vec<Vec<f32>>> {
        let batch: Vec<Sequence<'_>> =
            answers.iter().map(|a| Sequence { prompt: &prompts[a.prompt], ids: &a.ids }).collect();
        let logps = self.policy.logps(&batch, temperature, side)?;
        Ok(logps.into_iter().map(|l| l.logp).collect())
    }
}

fn sampling(config: &Config) -> Sampling {
    let rollout = &config.rollout;
    Sampling {
        group_size: rollout.group_size,
        max_tokens: rollout.max_tokens,
        temperature: rollout.temperature,
        top_p: rollout.top_p,
        top_k: rollout.top_k,
    }
}

fn asked(sample: &Sample) -> Result<Asked> {
    let names = [sample.city.as_deref(), sample.country.as_deref()];
    Ok(Asked {
        id: sample.id.clone(),
        truth: names.into_iter().flatten().collect::<Vec<_>>().join(", "),
        image: sample.image.bytes()?.into_owned(),
    })
}

fn check_groups(
    groups: &[Vec<crate::Completion>],
    prompts: usize,
    group_size: usize,
) -> Result<()> {
    let sizes = groups.len() == prompts && groups.iter().all(|g| g.len() == group_size);
    let lengths = groups.iter().flatten().all(|c| c.ids.len() == c.logp.len());
    if sizes && lengths {
        return Ok(());
    }
    Err(Error::PolicyContract {
        call: "rollout",
        reason: format!(
            "expected {prompts} groups of {group_size} answers with one log-probability per token"
        ),
    })
}

/// Numbers of a generation by TRL's names.
fn values(answers: &[Answer], names: &[String], made: &Advantages) -> BTreeMap<String, f64> {
    let mut out = BTreeMap::new();
    let mut put = |name: String, value: f64| out.insert(name, value);
    put("reward".into(), made.mean);
    put("reward_std".into(), made.std);
    let zero = made.zero_std.iter().filter(|&&z| z).count();
    put("frac_reward_zero_std".into(), zero as f64 / made.zero_std.len().max(1) as f64);
    for (k, name) in names.iter().enumerate() {
        let known: Vec<f64> = answers.iter().filter_map(|a| a.parts[k]).collect();
        put(format!("rewards/{name}/missing"), (answers.len() - known.len()) as f64);
        if !known.is_empty() {
            let mean = known.iter().sum::<f64>() / known.len() as f64;
            put(format!("rewards/{name}/mean"), mean);
            put(format!("rewards/{name}/std"), std_unbiased(&known));
        }
    }
    let all: Vec<f64> = answers.iter().map(|a| a.ids.len() as f64).collect();
    let ended = answers.iter().filter(|a| a.stop == Stop::End);
    let ended: Vec<f64> = ended.map(|a| a.ids.len() as f64).collect();
    let cut = 1.0 - ended.len() as f64 / all.len().max(1) as f64;
    put("completions/clipped_ratio".into(), cut);
    for (kind, lengths) in [("", &all), ("terminated_", &ended)] {
        let n = lengths.len().max(1) as f64;
        put(format!("completions/mean_{kind}length"), lengths.iter().sum::<f64>() / n);
        let least = lengths.iter().copied().reduce(f64::min).unwrap_or(0.0);
        put(format!("completions/min_{kind}length"), least);
        let most = lengths.iter().copied().reduce(f64::max).unwrap_or(0.0);
        put(format!("completions/max_{kind}length"), most);
    }
    out
}

/// The first prompts of a buffer for people.
pub(super) fn reports(buffer: &Buffer, most: usize) -> Vec<SampleReport> {
    let report = |(i, asked): (usize, &Asked)| SampleReport {
        id: asked.id.clone(),
        truth: asked.truth.clone(),
        image: asked.image.clone(),
        names: buffer.names.clone(),
        answers: buffer.answers.iter().filter(|a| a.prompt == i).map(answer_report).collect(),
    };
    buffer.prompts.iter().enumerate().take(most).map(report).collect()
}

fn answer_report(answer: &Answer) -> AnswerReport {
    AnswerReport {
        text: answer.text.clone(),
        parts: answer.parts.clone(),
        total: answer.total,
        advantage: answer.advantage,
        truncated: answer.stop == Stop::Length,
        tokens: answer.ids.len(),
    }
}
