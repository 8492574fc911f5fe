//! GRPO. What it is: sample, score, compare within the group, step. What it is not: it knows no
//! device, no model and no terminal, and keeps no old copy of the weights.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use super::{
    buffer::{Answer, Asked, Buffer},
    event::{Observer, StepStats, TrainEvent, warn_of_bad_images},
    generate::{Generator, reports},
    saved::{self, HostCopy, RunState},
};
use crate::{
    Error, Policy, Prompt, Result, Sequence, Side, Stop, TokenLogps,
    checkpoint::{Loaded, RealDisk, Store},
    config::Config,
    data::Stream,
    loss::{Correction, GrpoConfig, LossMetrics, Scope, SequenceTerms, grpo_loss},
    optimiser::{Schedule, Verdict},
    rewards::RewardSet,
};

/// How [`Trainer::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Complete,
    /// It was asked to stop; a checkpoint is saved.
    Stopped,
}

/// A run.
pub struct Trainer<P> {
    config: Config,
    policy: P,
    stream: Stream,
    rewards: RewardSet,
    store: Store,
    state: RunState,
    buffer: Option<Buffer>,
    /// State and weights after some earlier step, in case the device is lost.
    host_copy: Option<HostCopy>,
}

impl<P: Policy> Trainer<P> {
    /// A run at its beginning. Checkpoints go to `<run.output>/checkpoints`.
    pub fn new(config: Config, policy: P, stream: Stream, rewards: RewardSet) -> Self {
        let root = PathBuf::from(&config.run.output).join("checkpoints");
        let state = RunState { identity: policy.identity(), ..RunState::default() };
        let store = Store::new(root, config.checkpoint.keep);
        Self { config, policy, stream, rewards, store, state, buffer: None, host_copy: None }
    }

    /// Notes version and commit of the program in every checkpoint.
    pub fn with_commit(mut self, commit: impl Into<String>) -> Self {
        self.state.commit = Some(commit.into());
        self
    }

    /// Goes on from a checkpoint. `allow_changes` accepts a configuration that learns otherwise.
    ///
    /// # Errors
    /// [`Error::ResumeChanged`] with every difference that matters, [`Error::ResumeOther`] for a
    /// checkpoint of another base model, and errors of reading it.
    pub fn resume(&mut self, loaded: &Loaded, allow_changes: bool) -> Result<()> {
        let identity = self.policy.identity();
        let saved = saved::open_for(loaded, &self.config, identity, allow_changes)?;
        self.policy.load_from(&saved.policy())?;
        self.stream.seek(saved.state.cursor);
        self.state = self.state.going_on_from(saved.state);
        self.buffer = saved.buffer;
        Ok(())
    }

    /// Where the run stands.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// The policy, such as for exporting it.
    pub fn policy(&mut self) -> &mut P {
        &mut self.policy
    }

    /// The policy, once training is over.
    pub fn into_policy(self) -> P {
        self.policy
    }

    /// The folder of checkpoints.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The data, such as for the list of photos left out.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Steps until all are done or `stop` is set, with checkpoints on the way and at the end.
    ///
    /// # Errors
    /// [`Error::Interrupted`] with the checkpoint saved and the cause, such as a reward server that
    /// stays away or a lost device; an error of saving the checkpoint itself.
    pub fn run(&mut self, watch: &mut dyn Observer, stop: &AtomicBool) -> Result<Ending> {
        match self.run_inner(watch, stop) {
            Err(cause) if self.state.step > 0 || self.host_copy.is_some() => {
                let (copy, config) = (self.host_copy.take(), self.config.clone());
                let store = self.store.clone();
                let save = || self.save();
                Err(saved::save_after(cause, copy.as_ref(), &config, &store, save))
            }
            other => other,
        }
    }

    fn run_inner(&mut self, watch: &mut dyn Observer, stop: &AtomicBool) -> Result<Ending> {
        let (total, every) = (self.config.training.steps, self.config.checkpoint.every);
        let weights = self.rewards.weights();
        watch.on(&TrainEvent::Started { step: self.state.step, total, weights: &weights })?;
        let mut saved_at = None;
        while self.state.step < total {
            if stop.load(Ordering::Relaxed) {
                if saved_at != Some(self.state.step) {
                    let path = self.save()?;
                    watch.on(&TrainEvent::Checkpoint(&path))?;
                }
                watch.on(&TrainEvent::Ended { step: self.state.step, complete: false })?;
                return Ok(Ending::Stopped);
            }
            let stats = self.step(watch)?;
            watch.on(&TrainEvent::Step(&stats))?;
            if stats.step.is_multiple_of(every) || stats.step == total {
                let path = self.save()?;
                saved_at = Some(stats.step);
                watch.on(&TrainEvent::Checkpoint(&path))?;
            }
        }
        watch.on(&TrainEvent::Ended { step: self.state.step, complete: true })?;
        Ok(Ending::Complete)
    }

    /// One optimiser step, sampling first when the last generation is used up.
    ///
    /// # Errors
    /// Those of data, rewards and policy. The run then stands where it stood before the step.
    pub fn step(&mut self, watch: &mut dyn Observer) -> Result<StepStats> {
        let started = Instant::now();
        if self.buffer.is_none() {
            self.generate()?;
        }
        warn_of_bad_images(&mut self.stream, watch)?;
        self.show_samples(watch)?;
        let metrics = self.accumulate()?;
        let backward_s = started.elapsed().as_secs_f64();
        let lr = self.schedule().lr(self.state.step);
        let outcome = self.policy.step(lr, self.config.optimiser.max_grad_norm)?;
        let verdict =
            self.state.guard.judge(outcome.grad_norm, self.config.optimiser.max_bad_steps)?;
        if verdict == Verdict::Skip {
            let norm = outcome.grad_norm;
            let text = format!("step {}: gradient norm {norm}, step left out", self.state.step + 1);
            watch.on(&TrainEvent::Warning(&text))?;
        }
        self.state.step += 1;
        self.state.cursor = self.stream.cursor();
        let mut values = metrics.values(self.config.loss.beta);
        values.append(&mut self.use_buffer());
        self.copy_to_host()?;
        values.insert("learning_rate".into(), lr);
        values.insert("grad_norm".into(), outcome.grad_norm);
        values.insert("skipped_steps".into(), self.state.guard.skipped as f64);
        values.insert("data/epoch".into(), f64::from(self.state.cursor.epoch));
        values.insert("data/bad_images".into(), self.stream.bad_images().1 as f64);
        values.insert("time/step_s".into(), started.elapsed().as_secs_f64());
        values.insert("time/until_optimiser_s".into(), backward_s);
        if let Some(bytes) = self.policy.memory_bytes() {
            values.insert("memory/device_bytes".into(), bytes as f64);
        }
        Ok(StepStats { step: self.state.step, values })
    }

    fn schedule(&self) -> Schedule {
        let (optimiser, total_steps) = (&self.config.optimiser, self.config.training.steps);
        Schedule {
            peak: optimiser.lr,
            warmup_steps: (optimiser.warmup * total_steps as f64).ceil() as u64,
            total_steps,
            decay: optimiser.schedule,
        }
    }

    /// Fills the buffer; on failure the data stand where they stood.
    fn generate(&mut self) -> Result<()> {
        let cursor = self.stream.cursor();
        let buffer = Generator {
            config: &self.config,
            policy: &mut self.policy,
            stream: &mut self.stream,
            rewards: &mut self.rewards,
            step: self.state.step,
        }
        .run();
        self.buffer = Some(buffer.inspect_err(|_| self.stream.seek(cursor))?);
        Ok(())
    }

    /// Shows some answers of a generation before its first step.
    fn show_samples(&self, watch: &mut dyn Observer) -> Result<()> {
        let (every, most) = (self.config.watch.samples_every, self.config.watch.samples);
        let Some(buffer) = self.buffer.as_ref().filter(|b| b.steps_done == 0 && every > 0) else {
            return Ok(());
        };
        if !buffer.made_at.is_multiple_of(every) {
            return Ok(());
        }
        let samples = reports(buffer, most);
        watch.on(&TrainEvent::Samples { step: buffer.made_at, samples: &samples })
    }

    /// Adds up the gradient of one optimiser step, micro-batch by micro-batch.
    fn accumulate(&mut self) -> Result<LossMetrics> {
        let Self { config, policy, buffer: Some(buffer), .. } = self else {
            return Ok(LossMetrics::default());
        };
        let batch = buffer.next_batch(config.run.seed, config.training.steps_per_generation);
        let answers: Vec<&Answer> = batch.iter().map(|&i| &buffer.answers[i]).collect();
        let masks = answers.iter().map(|a| mask(a, config.loss.mask_truncated)).collect::<Vec<_>>();
        let micro = config.training.micro_batch;
        let scope = Scope {
            sequences: answers.len() as f64,
            tokens: masks.iter().flatten().filter(|&&m| m).count() as f64,
            micro_batches: answers.len().div_ceil(micro) as f64,
        };
        let prompts: Vec<Prompt> = buffer.prompts.iter().map(Asked::prompt).collect();
        let mut metrics = LossMetrics::default();
        for (answers, masks) in answers.chunks(micro).zip(masks.chunks(micro)) {
            // Nothing would move: equal rewards and no reference to be drawn to.
            if config.loss.beta == 0.0 && answers.iter().all(|a| a.advantage == 0.0) {
                continue;
            }
            let micro = MicroBatch { config, prompts: &prompts, answers, masks, scope };
            metrics.merge(&micro.backward(policy)?);
        }
        Ok(metrics)
    }

    /// Counts a step of the buffer, drops it when it is used up, and gives its numbers once.
    fn use_buffer(&mut self) -> BTreeMap<String, f64> {
        let training = &self.config.training;
        let Some(buffer) = &mut self.buffer else {
            return BTreeMap::new();
        };
        let values = std::mem::take(&mut buffer.values);
        buffer.steps_done += 1;
        if buffer.steps_done >= training.steps_per_generation * training.iterations {
            self.buffer = None;
        }
        values
    }

    fn copy_to_host(&mut self) -> Result<()> {
        let Self { config, policy, state, buffer, .. } = self;
        if let Some(copy) = HostCopy::when_due(config, state, buffer.as_ref(), policy)? {
            self.host_copy = Some(copy);
        }
        Ok(())
    }

    /// Saves a checkpoint of the current step.
    ///
    /// # Errors
    /// Those of the policy and of the disk.
    pub fn save(&mut self) -> Result<PathBuf> {
        self.state.cursor = self.stream.cursor();
        let Self { config, policy, store, state, buffer, .. } = self;
        store.save(&mut RealDisk, state.step, |to| {
            saved::write(to, state, config, buffer.as_ref(), |sink| policy.save_to(sink))
        })
    }
}

/// False for every token of a truncated answer, if those are left out.
fn mask(answer: &Answer, mask_truncated: bool) -> Vec<bool> {
    vec![!(mask_truncated && answer.stop == Stop::Length); answer.ids.len()]
}

/// Answers that are on the device at once.
struct MicroBatch<'a> {
    config: &'a Config,
    prompts: &'a [Prompt],
    answers: &'a [&'a Answer],
    masks: &'a [Vec<bool>],
    scope: Scope,
}

impl MicroBatch<'_> {
    fn backward(&self, policy: &mut dyn Policy) -> Result<LossMetrics> {
        let temperature = self.config.rollout.temperature;
        let batch: Vec<Sequence<'_>> = self
            .answers
            .iter()
            .map(|a| Sequence { prompt: &self.prompts[a.prompt], ids: &a.ids })
            .collect();
        let reference = self.reference(policy, &batch)?;
        let mut metrics = LossMetrics::default();
        policy.backward(&batch, temperature, &mut |logps| {
            let loss = self.loss(logps, reference.as_deref())?;
            metrics = loss.metrics;
            let to_f32 = |row: Vec<f64>| row.into_iter().map(|g| g as f32).collect();
            Ok(loss.dlogp.into_iter().map(to_f32).collect())
        })?;
        Ok(metrics)
    }

    /// Log-probabilities of the reference: those kept, or one pass; none when beta is 0.
    fn reference(
        &self,
        policy: &mut dyn Policy,
        batch: &[Sequence<'_>],
    ) -> Result<Option<Vec<Vec<f32>>>> {
        if self.config.loss.beta == 0.0 {
            return Ok(None);
        }
        let kept: Option<Vec<Vec<f32>>> =
            self.answers.iter().map(|a| a.reference.as_ref().map(|r| r.0.clone())).collect();
        if kept.is_some() {
            return Ok(kept);
        }
        let logps = policy.logps(batch, self.config.rollout.temperature, Side::Reference)?;
        Ok(Some(logps.into_iter().map(|l| l.logp).collect()))
    }

    fn loss(
        &self,
        logps: &[TokenLogps],
        reference: Option<&[Vec<f32>]>,
    ) -> Result<crate::loss::GrpoLoss> {
        if logps.len() != self.answers.len() {
            let reason = format!("{} results for {} answers", logps.len(), self.answers.len());
            return Err(Error::PolicyContract { call: "backward", reason });
        }
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let rows: Vec<[Option<Vec<f64>>; 5]> = (0..self.answers.len())
            .map(|i| {
                [
                    Some(wide(&logps[i].logp)),
                    self.answers[i].old.as_ref().map(|old| wide(&old.0)),
                    reference.map(|r| wide(&r[i])),
                    Some(wide(&self.answers[i].sampling)),
                    Some(wide(&logps[i].entropy)),
                ]
            })
            .collect();
        let terms: Vec<SequenceTerms<'_>> = rows
            .iter()
            .enumerate()
            .map(|(i, [logp, old, reference, sampling, entropy])| SequenceTerms {
                logp: logp.as_deref().unwrap_or_default(),
                old: old.as_deref(),
                reference: reference.as_deref(),
                sampling: sampling.as_deref(),
                entropy: entropy.as_deref(),
                mask: &self.masks[i],
                advantage: self.answers[i].advantage,
            })
            .collect();
        grpo_loss(&loss_config(self.config), &terms, self.scope)
    }
}

fn loss_config(config: &Config) -> GrpoConfig {
    let loss = &config.loss;
    GrpoConfig {
        loss_type: loss.loss_type,
        importance: loss.importance,
        epsilon_low: loss.epsilon_low,
        epsilon_high: loss.epsilon_high,
        delta: (loss.delta > 0.0).then_some(loss.delta),
        beta: loss.beta,
        max_completion_tokens: config.rollout.max_tokens,
        sampler: Correction { mode: loss.sampler_correction, min: 0.0, max: loss.sampler_max },
    }
}
