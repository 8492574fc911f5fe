//! One answer, token by token.

use globe_ops::{read_f32, tensor_i32};
use serde::{Deserialize, Serialize};

use crate::engine::finite;
use crate::{Cancel, Draw, Engine, Error, Result, Sampling, Session};

/// What happens while a photo is answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// Photo and prompt are cut into patches and tokens.
    Prepared {
        /// Tokens of the prompt, those of images included.
        prompt_tokens: usize,
        /// Those of images.
        image_tokens: usize,
    },
    /// The vision tower and the prompt are computed or under way.
    Prefilled,
    /// One more token of an answer.
    Token {
        /// Which answer, from 0.
        sample: u32,
        /// The token.
        id: u32,
        /// Text that became complete with it; may be empty.
        text: &'a str,
    },
    /// An answer ended.
    Ended {
        /// Which answer.
        sample: u32,
        /// What was left of its text: bytes of a character that the end cut.
        text: &'a str,
        /// Why.
        stop: StopReason,
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model ended it.
    EndOfText,
    /// It reached the longest length allowed.
    MaxTokens,
}

/// How one answer is generated.
#[derive(Clone, Copy, Debug)]
pub struct Generation {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Names the run: equal seeds give equal answers on one device.
    pub seed: u64,
    /// Which answer of the run.
    pub sample: u32,
    /// Most tokens of the answer; the session must have been given room for them.
    pub max_tokens: usize,
    /// Whether to go on after a stop token.
    pub ignore_stop: bool,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Its tokens, a stop token included.
    pub ids: Vec<u32>,
    /// Logarithm of each token's probability under penalties and temperature, before top-k and
    /// top-p cut the tail.
    pub logp: Vec<f32>,
    /// Its text without special tokens.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
}

impl Engine {
    /// Generates one answer to a prompt that was read; the session can be used again after it.
    ///
    /// # Errors
    /// As [`Engine::generate_all`].
    pub async fn generate(
        &self,
        session: &mut Session,
        generation: &Generation,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generated> {
        let answers = self.generate_all(session, generation, 1, cancel, on_event).await?;
        Ok(answers.into_iter().next().expect("one answer was asked for"))
    }

    /// One answer, each token chosen on the host: the reference path.
    pub(crate) async fn generate_on_host(
        &self,
        session: &mut Session,
        generation: &Generation,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generated> {
        let Generation { sample, max_tokens, .. } = *generation;
        session.cache.truncate(session.prompt.len());
        let mut detokenizer = self.tokenizer.detokenizer(true);
        let (mut ids, mut logps, mut text) = (Vec::new(), Vec::new(), String::new());
        let mut logits = session.logits.clone();
        let stop = loop {
            if ids.len() == max_tokens {
                break StopReason::MaxTokens;
            }
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let mut values = finite(read_f32(logits).await?)?;
            let (seed, position) = (generation.seed, ids.len() as u32);
            let draw = Draw { seed, sample, position };
            let (id, logp) = generation.sampling.choose(&mut values, &session.prompt, &ids, &draw);
            ids.push(id);
            logps.push(logp);
            if self.stop.contains(id) && !generation.ignore_stop {
                break StopReason::EndOfText;
            }
            let piece = detokenizer.push(id)?;
            text += &piece;
            on_event(Event::Token { sample, id, text: &piece });
            if ids.len() == max_tokens {
                break StopReason::MaxTokens; // nobody reads the logits after the last token
            }
            let id = tensor_i32(vec![id as i32], [1], &self.compute.device);
            logits = self.model.step(id, &mut session.cache)?;
        };
        let rest = detokenizer.finish()?;
        text += &rest;
        on_event(Event::Ended { sample, text: &rest, stop });
        Ok(Generated { ids, logp: logps, text, stop })
    }
}
