//! [`globe_train::Policy`] over an engine and an adapter.

use std::cell::RefCell;
use std::rc::Rc;

use globe_engine::{Cancel, Engine, Error as EngineError, Event, Generation, StopReason};
use globe_model::{AnswerGroup, Gradients, LoraModules, TrainingPass};
use globe_text::Prompt as Wording;
use globe_train::checkpoint::{Adapter, AdapterConfig};
use globe_train::optimiser::AdamWConfig;
use globe_train::{
    Completion, Gradient, Policy, PolicyError, PolicyResult, PolicyState, Prompt, Sampling,
    Sequence, Side, StepOutcome, Stop, Tensors, TokenLogps,
};

use crate::adamw::DeviceAdamW;
use crate::adapter::{from_peft, shape, to_peft};
use crate::look::{Look, Looks};

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

/// A model with an adapter that is trained.
pub struct ModelPolicy {
    engine: Shared,
    options: PolicyOptions,
    config: AdapterConfig,
    looks: Looks,
    adamw: DeviceAdamW,
    gradients: Option<Gradients>,
}

impl ModelPolicy {
    /// A policy that starts from `modules`.
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
            DeviceAdamW::new(options.adamw, &parameters, &device)
        };
        let looks = Looks::new(options.max_pixels);
        Ok(Self { engine, options, config, looks, adamw, gradients: None })
    }

    /// The adapter as it is now, by PEFT's names.
    ///
    /// # Errors
    /// [`PolicyError`] if the device failed.
    pub fn adapter(&self) -> PolicyResult<Adapter> {
        let mut engine = self.engine.borrow_mut();
        let parameters = engine.model_mut().lora_parameters();
        let modules = pollster::block_on(parameters.read(None)).map_err(device_error)?;
        Ok(to_peft(self.config.clone(), modules))
    }

    /// The photo of a prompt with its wording.
    fn look(&mut self, prompt: &Prompt) -> PolicyResult<Rc<Look>> {
        let wording = match &prompt.question {
            Some(question) => Wording { system: None, user: question.clone() },
            None => self.options.prompt.clone(),
        };
        self.looks.get(&self.engine.borrow(), &prompt.image, &wording)
    }

    /// Sequences of one prompt each, in the order of their first.
    fn groups(&mut self, batch: &[Sequence<'_>]) -> PolicyResult<Vec<Group>> {
        let mut groups: Vec<(&Prompt, Vec<usize>)> = Vec::new();
        for (i, sequence) in batch.iter().enumerate() {
            match groups.iter_mut().find(|(prompt, _)| **prompt == *sequence.prompt) {
                Some((_, members)) => members.push(i),
                None => groups.push((sequence.prompt, vec![i])),
            }
        }
        let group = |(prompt, members)| Ok(Group { look: self.look(prompt)?, members });
        groups.into_iter().map(group).collect()
    }

    /// The training kernels over one group.
    fn forward(
        &self,
        group: &Group,
        batch: &[Sequence<'_>],
        temperature: f64,
        keep: bool,
    ) -> PolicyResult<TrainingPass> {
        let answers: Vec<&[u32]> = group.members.iter().map(|i| batch[*i].ids).collect();
        let Look { prepared, features } = &*group.look;
        let (prompt, grids) = (&prepared.ids[..], &prepared.grids[..]);
        let group = AnswerGroup { prompt, images: features.clone(), grids, answers: &answers };
        let engine = self.engine.borrow();
        engine.model().forward(&group, temperature as f32, keep).map_err(model_error)
    }

    /// Log-probabilities of one pass put where the batch has its answers.
    fn note(group: &Group, pass: &TrainingPass, all: &mut [TokenLogps]) -> PolicyResult<()> {
        let logps = pollster::block_on(pass.logps()).map_err(model_error)?;
        for (i, answer) in group.members.iter().zip(logps) {
            all[*i] = TokenLogps { logp: answer.logp, entropy: answer.entropy };
        }
        Ok(())
    }
}

/// The pairs that `tensors` hold by PEFT's names.
fn modules_of(config: &AdapterConfig, tensors: &Tensors) -> PolicyResult<LoraModules> {
    Ok(from_peft(Adapter::from_tensors(config.clone(), tensors).map_err(failed)?))
}

/// Answers of a batch that share a prompt.
struct Group {
    look: Rc<Look>,
    members: Vec<usize>,
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
        let mut all = Vec::with_capacity(prompts.len());
        for (prompt, seed) in prompts.iter().zip(seeds) {
            let look = self.look(prompt)?;
            let engine = self.engine.borrow();
            let (n, max_tokens) = (sampling.group_size, sampling.max_tokens);
            let (prepared, features) = (&look.prepared, look.features.clone());
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
    }

    fn encode(&mut self, text: &str) -> PolicyResult<Vec<u32>> {
        self.engine.borrow().encode_answer(text).map_err(engine_error)
    }

    fn logps(
        &mut self,
        batch: &[Sequence<'_>],
        temperature: f64,
        side: Side,
    ) -> PolicyResult<Vec<TokenLogps>> {
        let groups = self.groups(batch)?;
        let mut all = vec![TokenLogps::default(); batch.len()];
        self.engine.borrow_mut().model_mut().switch_lora(side == Side::Trained);
        let mut passes = groups.iter().map(|group| {
            let pass = self.forward(group, batch, temperature, false)?;
            Self::note(group, &pass, &mut all)
        });
        let done = passes.try_for_each(|pass| pass);
        self.engine.borrow_mut().model_mut().switch_lora(true);
        done.map(|()| all)
    }

    fn backward(
        &mut self,
        batch: &[Sequence<'_>],
        temperature: f64,
        gradient: &mut Gradient<'_>,
    ) -> globe_train::Result<()> {
        let groups = self.groups(batch)?;
        let mut all = vec![TokenLogps::default(); batch.len()];
        let mut passes = Vec::with_capacity(groups.len());
        for group in &groups {
            let pass = self.forward(group, batch, temperature, true)?;
            Self::note(group, &pass, &mut all)?;
            passes.push(pass);
        }
        let dlogps = gradient(&all)?;
        let engine = self.engine.borrow();
        let sum = self.gradients.get_or_insert_with(|| engine.model().lora_gradients());
        for (group, pass) in groups.iter().zip(passes) {
            let dlogp: Vec<Vec<f32>> = group.members.iter().map(|i| dlogps[*i].clone()).collect();
            engine.model().backward(pass, &dlogp, sum).map_err(model_error)?;
        }
        Ok(())
    }

    fn step(&mut self, lr: f64, max_grad_norm: f64) -> PolicyResult<StepOutcome> {
        let mut engine = self.engine.borrow_mut();
        let gradients = self.gradients.take().unwrap_or_else(|| engine.model().lora_gradients());
        let mut parameters = engine.model_mut().lora_parameters();
        self.adamw.step(&mut parameters, gradients.into_tensors(), lr, max_grad_norm)
    }

    fn save(&mut self) -> PolicyResult<PolicyState> {
        let parameters = self.adapter()?.tensors();
        let mut engine = self.engine.borrow_mut();
        let config = &self.config;
        let to_tensors = |modules| to_peft(config.clone(), modules).tensors();
        let optimiser = self.adamw.save(&engine.model_mut().lora_parameters(), to_tensors)?;
        Ok(PolicyState { parameters, optimiser, adapter: Some(self.config.clone()) })
    }

    fn load(&mut self, state: &PolicyState) -> PolicyResult<()> {
        if let Some(saved) = &state.adapter
            && (saved.r, saved.scaling()) != (self.config.r, self.config.scaling())
        {
            let (r, alpha) = (saved.r, saved.lora_alpha);
            return Err(failed(format!("the saved adapter has rank {r} and alpha {alpha}")));
        }
        let modules = modules_of(&self.config, &state.parameters)?;
        let mut engine = self.engine.borrow_mut();
        let tensors = engine.model_mut().lora_parameters().lay_out(&modules);
        let mut tensors = tensors.map_err(model_error)?.into_iter();
        let missing = || failed("the saved adapter lacks a module");
        let mut parameters = engine.model_mut().lora_parameters();
        parameters.update(|_, _| tensors.next().ok_or_else(missing))?;
        let from_tensors = |tensors: &Tensors| modules_of(&self.config, tensors);
        self.adamw.load(&parameters, &state.optimiser, from_tensors)?;
        self.gradients = None;
        Ok(())
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
