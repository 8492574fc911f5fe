//! Training with known answers: imitation, and yes/no judgements for the reward model.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use super::{
    Ending,
    event::{Observer, StepStats, TrainEvent, warn_of_bad_images},
    pack::bins,
    saved::{self, HostCopy, RunState},
};
use crate::{
    Error, Policy, Prompt, Result, Sequence, TokenLogps,
    checkpoint::{Loaded, RealDisk, Store},
    config::Config,
    data::{Sample, Stream},
    loss::{cross_entropy, yes_no_loss},
    optimiser::{Schedule, Verdict},
    rewards::{Locatability, YesNo, read_answer},
};

/// What is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// The `response` of each row, word for word.
    Imitate,
    /// The `label` of each row: does the thought in its `response` locate the photo?
    Judge,
}

/// The words a judge chooses between.
const VERDICTS: [&str; 2] = ["Yes", "No"];

/// A run with known answers.
pub struct Supervised<P> {
    config: Config,
    task: Task,
    policy: P,
    train: Stream,
    eval: Option<Stream>,
    store: Store,
    state: RunState,
    /// After some earlier step, in case the device is lost.
    host_copy: Option<HostCopy>,
}

/// A row ready for the device.
struct Example {
    prompt: Prompt,
    /// One sequence to imitate, or the two verdicts.
    targets: Vec<Vec<u32>>,
    label: bool,
}

/// Sums over examples.
#[derive(Default)]
struct Sums {
    loss: f64,
    right: f64,
    examples: f64,
    tokens: f64,
}

impl<P: Policy> Supervised<P> {
    /// A run at its beginning. `eval` is the other part of the split, if there is one.
    pub fn new(config: Config, task: Task, policy: P, train: Stream, eval: Option<Stream>) -> Self {
        let root = PathBuf::from(&config.run.output).join("checkpoints");
        let state = RunState { identity: policy.identity(), ..RunState::default() };
        let store = Store::new(root, config.checkpoint.keep);
        Self { config, task, policy, train, eval, store, state, host_copy: None }
    }

    /// Notes version and commit of the program in every checkpoint.
    pub fn with_commit(mut self, commit: impl Into<String>) -> Self {
        self.state.commit = Some(commit.into());
        self
    }

    /// Goes on from a checkpoint, see [`super::Trainer::resume`].
    ///
    /// # Errors
    /// As there.
    pub fn resume(&mut self, loaded: &Loaded, allow_changes: bool) -> Result<()> {
        let identity = self.policy.identity();
        let saved = saved::open_for(loaded, &self.config, identity, allow_changes)?;
        self.policy.load_from(&saved.policy())?;
        self.train.seek(saved.state.cursor);
        self.state = self.state.going_on_from(saved.state);
        Ok(())
    }

    /// The policy.
    pub fn policy(&mut self) -> &mut P {
        &mut self.policy
    }

    /// Where the run stands.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// The policy, once training is over.
    pub fn into_policy(self) -> P {
        self.policy
    }

    /// The folder of checkpoints.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Steps until all are done, the evaluation stops improving, or `stop` is set.
    ///
    /// # Errors
    /// [`Error::Row`] for a row without what the task needs, and those of data, policy and disk, after
    /// the first step within [`Error::Interrupted`] with the checkpoint saved; an error of saving it.
    pub fn run(&mut self, watch: &mut dyn Observer, stop: &AtomicBool) -> Result<Ending> {
        match self.run_inner(watch, stop) {
            Err(cause) if self.state.step > 0 => {
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
        watch.on(&TrainEvent::Started { step: self.state.step, total, weights: &[] })?;
        let (mut ending, mut saved_at) = (Ending::Complete, None);
        while self.state.step < total {
            if stop.load(Ordering::Relaxed) {
                ending = Ending::Stopped;
                break;
            }
            let mut stats = self.step(watch)?;
            let enough = self.evaluate_when_due(&mut stats)?;
            watch.on(&TrainEvent::Step(&stats))?;
            if stats.step.is_multiple_of(every) {
                let path = self.save()?;
                saved_at = Some(stats.step);
                watch.on(&TrainEvent::Checkpoint(&path))?;
            }
            if matches!(self.state.best, Some((_, 0))) && stats.values.contains_key("eval_loss") {
                let path = self.save_to(&self.best_store())?;
                watch.on(&TrainEvent::Checkpoint(&path))?;
            }
            if enough {
                watch.on(&TrainEvent::Warning("the evaluation no longer improves: stopping"))?;
                break;
            }
        }
        if saved_at != Some(self.state.step) {
            let path = self.save()?;
            watch.on(&TrainEvent::Checkpoint(&path))?;
        }
        let complete = ending == Ending::Complete;
        watch.on(&TrainEvent::Ended { step: self.state.step, complete })?;
        Ok(ending)
    }

    /// One optimiser step over `rollout.prompts` rows.
    ///
    /// # Errors
    /// As for [`Supervised::run`].
    pub fn step(&mut self, watch: &mut dyn Observer) -> Result<StepStats> {
        let started = Instant::now();
        let n = self.config.rollout.prompts;
        let samples = (0..n).map(|_| self.train.next_sample()).collect::<Result<Vec<_>>>()?;
        warn_of_bad_images(&mut self.train, watch)?;
        let examples = examples(&mut self.policy, self.task, samples)?;
        let tokens = examples.iter().flat_map(|e| &e.targets).map(Vec::len).sum::<usize>() as f64;
        let mut sums = Sums::default();
        let micro_batches = self.micro_batches(examples)?;
        let n_batches = micro_batches.len();
        for micro in micro_batches {
            let batch = sequences(&micro);
            let task = self.task;
            self.policy.backward(&batch, 1.0, &mut |logps| {
                let (gradient, part) = losses(task, &micro, logps, tokens, n as f64)?;
                sums.add(&part);
                Ok(gradient)
            })?;
        }
        let lr = self.schedule().lr(self.state.step);
        let outcome = self.policy.step(lr, self.config.optimiser.max_grad_norm)?;
        let max_bad = self.config.optimiser.max_bad_steps;
        if self.state.guard.judge(outcome.grad_norm, max_bad)? == Verdict::Skip {
            let text = format!("step {}: gradient not finite, left out", self.state.step + 1);
            watch.on(&TrainEvent::Warning(&text))?;
        }
        self.state.step += 1;
        self.state.cursor = self.train.cursor();
        let copy = HostCopy::when_due(&self.config, &self.state, None, &mut self.policy)?;
        self.host_copy = copy.or(self.host_copy.take());
        let mut stats = StepStats { step: self.state.step, ..StepStats::default() };
        sums.put("", self.task, &mut stats);
        for (name, value) in [
            ("learning_rate", lr),
            ("grad_norm", outcome.grad_norm),
            ("skipped_steps", self.state.guard.skipped as f64),
            ("data/epoch", f64::from(self.state.cursor.epoch)),
            ("data/bad_images", self.train.bad_images().1 as f64),
            ("micro_batches", n_batches as f64),
            ("time/step_s", started.elapsed().as_secs_f64()),
        ] {
            stats.values.insert(name.into(), value);
        }
        Ok(stats)
    }

    /// Examples that are on the device at once: so many, or as many as share a sequence.
    fn micro_batches(&mut self, examples: Vec<Example>) -> Result<Vec<Vec<Example>>> {
        let training = &self.config.training;
        let mut examples: Vec<Option<Example>> = examples.into_iter().map(Some).collect();
        let micro_batches: Vec<Vec<usize>> = if training.packing {
            let prompts: Vec<&Prompt> = examples.iter().flatten().map(|e| &e.prompt).collect();
            let prompts = self.policy.prompt_tokens(&prompts)?;
            let read = |e: &Example| e.targets.iter().map(|t| t.len().saturating_sub(1)).sum();
            let answers = examples.iter().flatten().map(read);
            let lengths: Vec<usize> =
                prompts.into_iter().zip(answers).map(|(a, b): (usize, usize)| a + b).collect();
            if lengths.len() != examples.len() {
                let reason = format!("{} lengths of {} prompts", lengths.len(), examples.len());
                return Err(Error::PolicyContract { call: "prompt_tokens", reason });
            }
            bins(&lengths, training.max_packed_tokens)
        } else {
            let all: Vec<usize> = (0..examples.len()).collect();
            all.chunks(training.micro_batch).map(<[usize]>::to_vec).collect()
        };
        let take =
            |members: Vec<usize>| members.iter().filter_map(|&i| examples[i].take()).collect();
        Ok(micro_batches.into_iter().map(take).collect())
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

    /// Adds the evaluation to the numbers of its step; true when patience is at its end.
    fn evaluate_when_due(&mut self, stats: &mut StepStats) -> Result<bool> {
        let (every, patience) = (self.config.training.eval_every, self.config.training.patience);
        if every == 0 || !self.state.step.is_multiple_of(every) || self.eval.is_none() {
            return Ok(false);
        }
        let sums = self.evaluate()?;
        sums.put("eval_", self.task, stats);
        let (best, since) = self.state.best.unwrap_or((f64::INFINITY, 0));
        let loss = sums.loss;
        self.state.best = Some(if loss < best { (loss, 0) } else { (best, since + 1) });
        let since = self.state.best.map_or(0, |(_, since)| since);
        Ok(patience > 0 && since >= patience as u64)
    }

    /// Mean loss over the whole evaluation part, without gradients.
    fn evaluate(&mut self) -> Result<Sums> {
        let mut total = Sums::default();
        let Some(mut eval) = self.eval.take() else {
            return Ok(total);
        };
        let done = self.evaluate_all(&mut eval, &mut total);
        self.eval = Some(eval);
        done?;
        total.loss /= match self.task {
            Task::Imitate => total.tokens.max(1.0),
            Task::Judge => total.examples.max(1.0),
        };
        Ok(total)
    }

    fn evaluate_all(&mut self, eval: &mut Stream, total: &mut Sums) -> Result<()> {
        eval.seek(Default::default());
        let mut left = eval.epoch_len();
        while left > 0 {
            let n = left.min(self.config.rollout.prompts as u64);
            let samples = (0..n).map(|_| eval.next_sample()).collect::<Result<Vec<_>>>()?;
            left -= n;
            let examples = examples(&mut self.policy, self.task, samples)?;
            for micro in self.micro_batches(examples)? {
                let batch = sequences(&micro);
                let logps = self.policy.logps(&batch, 1.0, crate::Side::Trained)?;
                let (_, part) = losses(self.task, &micro, &logps, 1.0, 1.0)?;
                total.add(&part);
            }
        }
        Ok(())
    }

    /// Saves a checkpoint of the current step.
    ///
    /// # Errors
    /// Those of the policy and of the disk.
    pub fn save(&mut self) -> Result<PathBuf> {
        self.save_to(&self.store.clone())
    }

    /// Where the checkpoint of the best evaluation is kept: `<run.output>/best`.
    pub fn best_store(&self) -> Store {
        Store::new(PathBuf::from(&self.config.run.output).join("best"), 1)
    }

    fn save_to(&mut self, store: &Store) -> Result<PathBuf> {
        let Self { config, policy, state, .. } = self;
        store.save(&mut RealDisk, state.step, |to| {
            saved::write(to, state, config, None, |sink| policy.save_to(sink))
        })
    }
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.right += other.right;
        self.examples += other.examples;
        self.tokens += other.tokens;
    }

    fn put(&self, prefix: &str, task: Task, stats: &mut StepStats) {
        stats.values.insert(format!("{prefix}loss"), self.loss);
        if task == Task::Judge {
            let accuracy = self.right / self.examples.max(1.0);
            stats.values.insert(format!("{prefix}accuracy"), accuracy);
        }
    }
}

fn examples(policy: &mut dyn Policy, task: Task, samples: Vec<Sample>) -> Result<Vec<Example>> {
    samples.into_iter().map(|sample| example(policy, task, sample)).collect()
}

fn example(policy: &mut dyn Policy, task: Task, sample: Sample) -> Result<Example> {
    let missing = |reason: &str| Error::Row { id: sample.id.clone(), reason: reason.into() };
    let image = sample.image.bytes()?.into_owned().into();
    let response = sample.response.as_deref().ok_or_else(|| missing("no `response`"))?;
    if task == Task::Imitate {
        let prompt = Prompt { id: sample.id.clone(), image, question: None };
        return Ok(Example { prompt, targets: vec![policy.encode(response)?], label: true });
    }
    let label = sample.label.ok_or_else(|| missing("no `label`"))?;
    let thought = read_answer(response).thought.unwrap_or_else(|| response.to_owned());
    let question = Some(Locatability::<NoJudge>::question(&thought));
    let mut targets = Vec::new();
    for word in VERDICTS {
        let first = policy.encode(word)?.first().copied();
        let first = first.ok_or_else(|| missing("the verdict has no token"))?;
        targets.push(vec![first]);
    }
    Ok(Example { prompt: Prompt { id: sample.id, image, question }, targets, label })
}

/// Only for its question, which needs no judge.
struct NoJudge;

impl crate::rewards::Judge for NoJudge {
    fn judge(&mut self, _: &[crate::rewards::JudgeRequest<'_>]) -> Result<Vec<YesNo>> {
        Ok(Vec::new())
    }
}

fn sequences(examples: &[Example]) -> Vec<Sequence<'_>> {
    examples
        .iter()
        .flat_map(|e| e.targets.iter().map(|ids| Sequence { prompt: &e.prompt, ids }))
        .collect()
}

/// Gradients and sums of a micro-batch; `tokens` and `examples` are those of the whole step.
fn losses(
    task: Task,
    micro: &[Example],
    logps: &[TokenLogps],
    tokens: f64,
    examples: f64,
) -> Result<(Vec<Vec<f32>>, Sums)> {
    let expected: Vec<usize> = micro.iter().flat_map(|e| e.targets.iter().map(Vec::len)).collect();
    if logps.iter().map(|l| l.logp.len()).ne(expected.iter().copied()) {
        let reason = "one log-probability per target token was expected".into();
        return Err(Error::PolicyContract { call: "logps", reason });
    }
    let rows: Vec<Vec<f64>> =
        logps.iter().map(|l| l.logp.iter().map(|&v| f64::from(v)).collect()).collect();
    let mut sums = Sums {
        tokens: expected.iter().sum::<usize>() as f64,
        examples: micro.len() as f64,
        ..Sums::default()
    };
    if task == Task::Imitate {
        let masks: Vec<Vec<bool>> = expected.iter().map(|&n| vec![true; n]).collect();
        let (rows, masks): (Vec<&[f64]>, Vec<&[bool]>) =
            rows.iter().zip(&masks).map(|(r, m)| (&r[..], &m[..])).unzip();
        let loss = cross_entropy(&rows, None, &masks, tokens, 0.0);
        sums.loss = loss.loss;
        let narrow = |row: Vec<f64>| row.into_iter().map(|g| g as f32).collect();
        return Ok((loss.dlogp.into_iter().map(narrow).collect(), sums));
    }
    let mut gradient = Vec::new();
    for (example, pair) in micro.iter().zip(rows.chunks(2)) {
        let loss = yes_no_loss(pair[0][0], pair[1][0], example.label);
        sums.loss += loss.loss / examples;
        sums.right += f64::from(u8::from((loss.p_yes > 0.5) == example.label));
        gradient.push(vec![(loss.d_yes / examples) as f32]);
        gradient.push(vec![(loss.d_no / examples) as f32]);
    }
    Ok((gradient, sums))
}
