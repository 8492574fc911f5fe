//! [`globe_train::Policy`] over an engine, of which an adapter or all weights are trained.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use globe_engine::{Cancel, Engine, Error as EngineError, Event, Generation, StopReason};
use globe_model::{Gradients, LoraModules, Model};
use globe_ops::{LogpOptions, read_f32, zeros};
use globe_text::Prompt as Wording;
use globe_train::checkpoint::{Adapter, AdapterConfig};
use globe_train::optimiser::AdamWConfig;
use globe_train::{
    Completion, Gradient, Policy, PolicyError, PolicyResult, Prompt, Sampling, Sequence, Side,
    StateSink, StateSource, StepOutcome, Stop, Tensors, TokenLogps,
};

use crate::adamw::{DeviceAdamW, Parameter};
use crate::adapter::{shape, to_peft};
use crate::look::{Look, Looks};
use crate::pass::{Group, Pass, features, packed};
use crate::saving;

/// An engine that a policy and its judge use in turn.
pub type Shared = Rc<RefCell<Engine>>;

/// What a policy is asked and how it learns.
pub struct PolicyOptions {
    /// The wording of the question.
    pub prompt: Wording,
    /// Photos are reduced to this many pixels; `None` keeps the model's own limit.
    pub max_pixels: Option<usize>,
    /// Constants of the optimiser.
    pub adamw: AdamWConfig,
    /// Names base weights and wording, see [`crate::identity()`].
    pub identity: String,
}

/// A model that is trained.
pub struct ModelPolicy {
    engine: Shared,
    options: PolicyOptions,
    trained: Trained,
    looks: Looks,
    adamw: DeviceAdamW,
    gradients: Option<Gradients>,
    /// Tokens of a sequence that several prompts share; 0: none do.
    max_packed_tokens: usize,
    label_smoothing: f32,
}

/// What is trained of it.
enum Trained {
    /// An adapter. The reference is the model without it.
    Adapter(AdapterConfig),
    /// All weights of the language model, and those of the tower if `vision`.
    Weights {
        vision: bool,
        /// The model before training.
        reference: Option<Box<Model>>,
    },
}

impl ModelPolicy {
    /// A policy that trains an adapter, from `modules`.
    ///
    /// # Errors
    /// [`PolicyError`] if the adapter belongs to another base.
    pub fn new(
        engine: Shared,
        options: PolicyOptions,
        config: AdapterConfig,
        modules: &LoraModules,
    ) -> PolicyResult<Self> {
        let adamw = {
            let mut engine = engine.borrow_mut();
            engine.set_lora(shape(&config), modules).map_err(engine_error)?;
            let device = engine.device().clone();
            let parameters = engine.model_mut().lora_parameters();
            let masks = parameters.masks().into_iter();
            let parameters = parameters.shapes().into_iter().zip(masks);
            let parameters =
                parameters.map(|(shape, mask)| Parameter { shape, mask, decays: true });
            DeviceAdamW::new(options.adamw, parameters.collect(), &device)
        };
        let looks = Looks::new(options.max_pixels);
        let trained = Trained::Adapter(config);
        Ok(Self::assembled(engine, options, trained, looks, adamw))
    }

    /// A policy that trains all weights of an engine loaded as [`globe_model::Precision::Trained`],
    /// those of the tower if `vision`. `reference` is the same model frozen, for losses that compare
    /// with it.
    ///
    /// # Errors
    /// [`PolicyError`] if the engine was loaded otherwise.
    pub fn of_weights(
        engine: Shared,
        options: PolicyOptions,
        vision: bool,
        reference: Option<Model>,
    ) -> PolicyResult<Self> {
        let adamw = {
            let mut engine = engine.borrow_mut();
            let device = engine.device().clone();
            let parameters = engine.model_mut().weight_parameters(vision);
            let shapes = parameters.shapes().map_err(model_error)?.into_iter();
            let parameters = shapes.zip(parameters.decays().map_err(model_error)?);
            let parameters =
                parameters.map(|(shape, decays)| Parameter { shape, mask: None, decays });
            DeviceAdamW::new(options.adamw, parameters.collect(), &device)
        };
        let looks = match vision {
            true => Looks::of_trained_tower(options.max_pixels),
            false => Looks::new(options.max_pixels),
        };
        let trained = Trained::Weights { vision, reference: reference.map(Box::new) };
        Ok(Self::assembled(engine, options, trained, looks, adamw))
    }

    /// Neither packs nor smooths labels.
    fn assembled(
        engine: Shared,
        options: PolicyOptions,
        trained: Trained,
        looks: Looks,
        adamw: DeviceAdamW,
    ) -> Self {
        Self {
            engine,
            options,
            trained,
            looks,
            adamw,
            gradients: None,
            max_packed_tokens: 0,
            label_smoothing: 0.0,
        }
    }

    /// Puts prompts with one answer each into sequences of at most `max_tokens`, where they do not see
    /// each other. Log-probabilities and gradients are those of single sequences but for rounding.
    pub fn with_packing(self, max_tokens: usize) -> Self {
        Self { max_packed_tokens: max_tokens, ..self }
    }

    /// Spreads so much of every label over the vocabulary: what [`Policy::backward`] gives, and takes the gradient
    /// of, is `(1 - smoothing) logp + smoothing * mean_v logp_v`. [`Policy::logps`] remain plain.
    pub fn with_label_smoothing(self, smoothing: f64) -> Self {
        Self { label_smoothing: smoothing as f32, ..self }
    }

    /// The adapter as it is now, by PEFT's names.
    ///
    /// # Errors
    /// [`PolicyError`] if the device failed, or all weights are trained.
    pub fn adapter(&self) -> PolicyResult<Adapter> {
        let Trained::Adapter(config) = &self.trained else {
            return Err(failed("all weights are trained: there is no adapter"));
        };
        let mut engine = self.engine.borrow_mut();
        let parameters = engine.model_mut().lora_parameters();
        let modules = pollster::block_on(parameters.read(None)).map_err(device_error)?;
        Ok(to_peft(config.clone(), modules))
    }

    /// What is trained, as it is now: an adapter by PEFT's names, weights by those of the model.
    ///
    /// # Errors
    /// [`PolicyError`] if the device failed.
    pub fn parameters(&self) -> PolicyResult<Tensors> {
        let Trained::Weights { vision, .. } = &self.trained else {
            return Ok(self.adapter()?.tensors());
        };
        let mut engine = self.engine.borrow_mut();
        let weights = engine.model_mut().weight_parameters(*vision);
        let mut out = Tensors::default();
        let mut each = |name: &str, shape: &[usize], values| {
            out.insert(name.into(), shape, values);
            Ok::<_, globe_model::Error>(())
        };
        pollster::block_on(weights.read(|_, own| Ok(own), &mut each)).map_err(model_error)?;
        Ok(out)
    }

    /// Zero gradients of what is trained.
    fn zero_gradients(&self, model: &mut Model) -> PolicyResult<Gradients> {
        match &self.trained {
            Trained::Adapter(_) => Ok(model.lora_gradients()),
            Trained::Weights { vision, .. } => model.weight_gradients(*vision).map_err(model_error),
        }
    }

    /// The photo of a prompt with its wording.
    fn look(&mut self, prompt: &Prompt) -> PolicyResult<Rc<Look>> {
        let wording = match &prompt.question {
            Some(question) => Wording { system: None, user: question.clone() },
            None => self.options.prompt.clone(),
        };
        self.looks.get(&self.engine.borrow(), &prompt.image, &wording)
    }

    /// Sequences by prompt, in the order of their first, put together as far as they are packed.
    fn groups(&mut self, batch: &[Sequence<'_>]) -> PolicyResult<Vec<Vec<Group>>> {
        let mut groups: Vec<(&Prompt, Vec<usize>)> = Vec::new();
        for (i, sequence) in batch.iter().enumerate() {
            match groups.iter_mut().find(|(prompt, _)| **prompt == *sequence.prompt) {
                Some((_, members)) => members.push(i),
                None => groups.push((sequence.prompt, vec![i])),
            }
        }
        let group = |(prompt, members)| Ok(Group { look: self.look(prompt)?, members });
        let groups = groups.into_iter().map(group).collect::<PolicyResult<_>>()?;
        Ok(packed(groups, batch, self.max_packed_tokens))
    }

    /// The training kernels over one sequence.
    fn forward(
        &self,
        groups: &[Group],
        batch: &[Sequence<'_>],
        options: LogpOptions,
        side: Side,
        keep: bool,
    ) -> PolicyResult<Pass> {
        let engine = self.engine.borrow();
        let model = match (&self.trained, side) {
            (Trained::Weights { reference, .. }, Side::Reference) => {
                let missing = "no copy of the model before training was kept";
                reference.as_deref().ok_or_else(|| failed(missing))?
            }
            _ => engine.model(),
        };
        Pass::forward(model, groups, batch, options, keep, self.trains_tower())
    }

    fn trains_tower(&self) -> bool {
        matches!(self.trained, Trained::Weights { vision: true, .. })
    }

    /// What uses the device. CubeCL panics where wgpu reports what a loss led to before the loss itself; a panic on a
    /// device that still answers is a bug, and goes on.
    fn guarded<T, E: From<PolicyError>>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let panic = match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(done) => return done,
            Err(panic) => panic,
        };
        let device = self.engine.borrow().device().clone();
        let read = || pollster::block_on(read_f32(zeros::<1>([1], &device)));
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(Ok(_)) => resume_unwind(panic),
            Ok(Err(error)) => Err(device_error(error).into()),
            Err(_) => Err(PolicyError::DeviceLost("it no longer answers".into()).into()),
        }
    }
}

impl Policy for ModelPolicy {
    fn identity(&self) -> String {
        self.options.identity.clone()
    }

    fn rollout(
        &mut self,
        prompts: &[Prompt],
        seeds: &[u64],
        sampling: &Sampling,
    ) -> PolicyResult<Vec<Vec<Completion>>> {
        self.guarded(|policy| {
            let mut all = Vec::with_capacity(prompts.len());
            for (prompt, seed) in prompts.iter().zip(seeds) {
                let look = policy.look(prompt)?;
                let engine = policy.engine.borrow();
                let (n, max_tokens) = (sampling.group_size, sampling.max_tokens);
                let prepared = &look.prepared;
                let features = features(engine.model(), &look)?;
                let mut session =
                    engine.prefill_for(prepared, features, max_tokens, n).map_err(engine_error)?;
                let generation = Generation {
                    sampling: globe_engine::Sampling {
                        temperature: sampling.temperature as f32,
                        top_k: sampling.top_k,
                        top_p: sampling.top_p as f32,
                        ..globe_engine::Sampling::default()
                    },
                    seed: *seed,
                    sample: 0,
                    max_tokens,
                    ignore_stop: false,
                };
                let (cancel, mut quiet) = (Cancel::default(), |_: Event<'_>| {});
                let answers =
                    engine.generate_all(&mut session, &generation, n as u32, &cancel, &mut quiet);
                let answers = pollster::block_on(answers).map_err(engine_error)?;
                let completion = |answer: globe_engine::Generated| Completion {
                    ids: answer.ids,
                    logp: answer.logp,
                    text: answer.text,
                    stop: match answer.stop {
                        StopReason::EndOfText => Stop::End,
                        StopReason::MaxTokens => Stop::Length,
                    },
                };
                all.push(answers.into_iter().map(completion).collect());
            }
            Ok(all)
        })
    }

    fn encode(&mut self, text: &str) -> PolicyResult<Vec<u32>> {
        self.engine.borrow().encode_answer(text).map_err(engine_error)
    }

    fn prompt_tokens(&mut self, prompts: &[&Prompt]) -> PolicyResult<Vec<usize>> {
        self.looks.make_room(prompts.len());
        prompts.iter().map(|prompt| Ok(self.look(prompt)?.prepared.ids.len())).collect()
    }

    fn logps(
        &mut self,
        batch: &[Sequence<'_>],
        temperature: f64,
        side: Side,
    ) -> PolicyResult<Vec<TokenLogps>> {
        self.guarded(|policy| {
            let groups = policy.groups(batch)?;
            let mut all = vec![TokenLogps::default(); batch.len()];
            policy.engine.borrow_mut().model_mut().switch_lora(side == Side::Trained);
            let options = LogpOptions::from(temperature as f32);
            let mut passes = groups.iter().map(|groups| {
                let pass = policy.forward(groups, batch, options, side, false)?;
                pass.note(groups, &mut all)
            });
            let done = passes.try_for_each(|pass| pass);
            policy.engine.borrow_mut().model_mut().switch_lora(true);
            done.map(|()| all)
        })
    }

    fn backward(
        &mut self,
        batch: &[Sequence<'_>],
        temperature: f64,
        gradient: &mut Gradient<'_>,
    ) -> globe_train::Result<()> {
        self.guarded(|policy| {
            let groups = policy.groups(batch)?;
            let mut all = vec![TokenLogps::default(); batch.len()];
            let mut passes = Vec::with_capacity(groups.len());
            let smoothing = policy.label_smoothing;
            let options = LogpOptions { temperature: temperature as f32, smoothing };
            for groups in &groups {
                let pass = policy.forward(groups, batch, options, Side::Trained, true)?;
                pass.note(groups, &mut all)?;
                passes.push(pass);
            }
            let dlogps = gradient(&all)?;
            let mut sum = match policy.gradients.take() {
                Some(sum) => sum,
                None => policy.zero_gradients(policy.engine.borrow_mut().model_mut())?,
            };
            let engine = policy.engine.borrow();
            let model = engine.model();
            for (groups, pass) in groups.iter().zip(passes) {
                pass.backward(model, groups, &dlogps, &mut sum)?;
            }
            drop(engine);
            policy.gradients = Some(sum);
            Ok(())
        })
    }

    fn step(&mut self, lr: f64, max_grad_norm: f64) -> PolicyResult<StepOutcome> {
        self.guarded(|policy| {
            let mut engine = policy.engine.borrow_mut();
            let model = engine.model_mut();
            let gradients = match policy.gradients.take() {
                Some(gradients) => gradients,
                None => policy.zero_gradients(model)?,
            };
            let gradients = gradients.into_tensors();
            match &policy.trained {
                Trained::Adapter(_) => {
                    let mut parameters = model.lora_parameters();
                    policy
                        .adamw
                        .step(gradients, lr, max_grad_norm, |update| parameters.update(update))
                }
                Trained::Weights { vision, .. } => {
                    let mut parameters = model.weight_parameters(*vision);
                    policy
                        .adamw
                        .step(gradients, lr, max_grad_norm, |update| parameters.update(update))
                }
            }
        })
    }

    fn save_to(&mut self, sink: &mut dyn StateSink) -> globe_train::Result<()> {
        self.guarded(|policy| {
            let mut engine = policy.engine.borrow_mut();
            match &policy.trained {
                Trained::Adapter(config) => {
                    saving::adapter(engine.model_mut(), &policy.adamw, config)?.save_to(sink)
                }
                Trained::Weights { vision, .. } => {
                    let weights = engine.model_mut().weight_parameters(*vision);
                    saving::save_weights(&weights, &policy.adamw, sink)
                }
            }
        })
    }

    fn load_from(&mut self, state: &StateSource<'_>) -> globe_train::Result<()> {
        let mut engine = self.engine.borrow_mut();
        let model = engine.model_mut();
        self.gradients = None;
        match (&self.trained, state.adapter) {
            (Trained::Adapter(config), Some(_)) => {
                saving::load_adapter(model, &mut self.adamw, config, &state.collect()?)
            }
            (Trained::Weights { vision, .. }, None) => {
                let weights = model.weight_parameters(*vision);
                saving::load_weights(weights, &mut self.adamw, state)
            }
            (Trained::Adapter(_), None) => {
                Err(failed("the checkpoint has all weights, here an adapter is trained").into())
            }
            (Trained::Weights { .. }, Some(_)) => {
                Err(failed("the checkpoint has an adapter, here all weights are trained").into())
            }
        }
    }

    fn memory_bytes(&self) -> Option<u64> {
        let engine = self.engine.borrow();
        Some(engine.memory().in_use).filter(|bytes| *bytes > 0)
    }
}

/// A failure with its reason.
pub(crate) fn failed(reason: impl Into<String>) -> PolicyError {
    PolicyError::failed(reason)
}

/// A lost device is told apart: the trainer then saves its host copy.
pub(crate) fn device_error(error: impl Into<globe_model::Error>) -> PolicyError {
    model_error(error.into())
}

pub(crate) fn model_error(error: globe_model::Error) -> PolicyError {
    match error {
        globe_model::Error::Ops(globe_ops::Error::Device { reason }) => {
            PolicyError::DeviceLost(reason)
        }
        other => PolicyError::Failed(Box::new(other)),
    }
}

pub(crate) fn engine_error(error: EngineError) -> PolicyError {
    match error {
        EngineError::Ops(error) => model_error(error.into()),
        EngineError::Model(error) => model_error(error),
        other => PolicyError::Failed(Box::new(other)),
    }
}
