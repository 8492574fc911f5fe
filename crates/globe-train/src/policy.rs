//! What the trainer asks of a model: answers, log-probabilities, gradients, steps.

use std::sync::Arc;

use crate::state::{Collector, PolicyState, StateSink, StateSource};

/// Results of a policy.
pub type PolicyResult<T> = Result<T, PolicyError>;

/// Why a policy could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The device is gone. The trainer saves its host copy of the last step.
    #[error("the device was lost: {0}")]
    DeviceLost(String),
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl PolicyError {
    /// From a message.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::Failed(reason.into().into())
    }
}

/// A photo to be asked about.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Id of the row, for errors and caches of image features.
    pub id: String,
    /// Encoded bytes of the photo; they decode, the data stream has tried.
    pub image: Arc<[u8]>,
    /// What is asked; `None` is the policy's own wording.
    pub question: Option<String>,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// With an end token, which is the last of its ids.
    End,
    /// At the length limit.
    Length,
}

/// One sampled answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Exactly the tokens sampled, the end token included. Never made from text.
    pub ids: Vec<u32>,
    /// Log-probability of each under the softmax of `logits / temperature` over the whole
    /// vocabulary, whatever top-p and top-k left to choose from.
    pub logp: Vec<f32>,
    /// The ids decoded, without special tokens.
    pub text: String,
    /// How it ended.
    pub stop: Stop,
}

/// How to sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Answers per prompt.
    pub group_size: usize,
    /// Longest answer in tokens.
    pub max_tokens: usize,
    /// Divides the logits.
    pub temperature: f64,
    /// Nucleus, 1 for all.
    pub top_p: f64,
    /// Most probable tokens, 0 for all.
    pub top_k: usize,
}

/// A prompt with one answer to it.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// What was asked.
    pub prompt: &'a Prompt,
    /// The answer's tokens.
    pub ids: &'a [u32],
}

/// Per answer token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenLogps {
    /// Log-probability of the token.
    pub logp: Vec<f32>,
    /// Entropy of the prediction in nats.
    pub entropy: Vec<f32>,
}

/// Whose log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The weights being trained.
    Trained,
    /// Those before training: the adapter switched off, or kept weights.
    Reference,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Norm of the gradient before clipping; not finite if any value was not.
    pub grad_norm: f64,
    /// False if the gradient was not finite and nothing was changed.
    pub applied: bool,
}

/// From log-probabilities of a batch to d loss / d log-probability of each token.
pub type Gradient<'a> = dyn FnMut(&[TokenLogps]) -> crate::Result<Vec<Vec<f32>>> + 'a;

/// A model that can be trained.
///
/// Calls are synchronous; an implementation over an asynchronous device blocks. The same calls in
/// the same order with the same state must give the same results, or resumed runs differ.
pub trait Policy {
    /// Names the base weights, tokenizer and wording, such as by a digest: a checkpoint is refused
    /// when it names another.
    fn identity(&self) -> String;

    /// `group_size` answers to each prompt. Token `t` of answer `i` to prompt `p` is drawn by the
    /// numbers `seeds[p]`, `i` and `t` alone (a [`globe_rng::Draw`] with that seed and sample): it
    /// does not depend on the rest of the batch.
    fn rollout(
        &mut self,
        prompts: &[Prompt],
        seeds: &[u64],
        sampling: &Sampling,
    ) -> PolicyResult<Vec<Vec<Completion>>>;

    /// Tokens of a known answer, with the end token.
    fn encode(&mut self, text: &str) -> PolicyResult<Vec<u32>>;

    /// Tokens of prompts, those of their photos included: what they take of a sequence.
    fn prompt_tokens(&mut self, prompts: &[&Prompt]) -> PolicyResult<Vec<usize>>;

    /// Log-probabilities of given answers under the softmax of `logits / temperature`, without
    /// gradients.
    fn logps(
        &mut self,
        batch: &[Sequence<'_>],
        temperature: f64,
        side: Side,
    ) -> PolicyResult<Vec<TokenLogps>>;

    /// One forward pass, one call of `gradient` with its log-probabilities, one backward pass from
    /// what that returns; parameter gradients are added to those of earlier calls.
    ///
    /// # Errors
    /// Those of the policy, and the error of `gradient` passed on.
    fn backward(
        &mut self,
        batch: &[Sequence<'_>],
        temperature: f64,
        gradient: &mut Gradient<'_>,
    ) -> crate::Result<()>;

    /// One optimiser step from the gradients added up, scaled down to `max_grad_norm` (0: not);
    /// clears them. A gradient that is not finite changes nothing.
    fn step(&mut self, lr: f64, max_grad_norm: f64) -> PolicyResult<StepOutcome>;

    /// Gives everything that training changes, one tensor at a time: what all of it takes may not fit
    /// into the memory of the host.
    ///
    /// # Errors
    /// Those of the policy, and those of `sink` passed on.
    fn save_to(&mut self, sink: &mut dyn StateSink) -> crate::Result<()>;

    /// Takes over a saved state, one tensor at a time; after it, all calls give what they gave when it
    /// was saved.
    ///
    /// # Errors
    /// Those of the policy, such as for a state of another model, and of reading. The policy is of no
    /// use then.
    fn load_from(&mut self, state: &StateSource<'_>) -> crate::Result<()>;

    /// A copy of everything that training changes, in host memory.
    ///
    /// # Errors
    /// As [`Policy::save_to`].
    fn save(&mut self) -> crate::Result<PolicyState> {
        let mut all = Collector::default();
        self.save_to(&mut all)?;
        all.finish()
    }

    /// Takes over such a copy.
    ///
    /// # Errors
    /// As [`Policy::load_from`].
    fn load(&mut self, state: &PolicyState) -> crate::Result<()> {
        self.load_from(&state.source())
    }

    /// Memory in use on the device, if known.
    fn memory_bytes(&self) -> Option<u64> {
        None
    }
}
