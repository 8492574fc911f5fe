//! One answer, token by token.

use globe_ops::{Int, Tensor, argmax, read_f32, read_i32, tensor_i32};
use globe_rng::uniform;
use serde::{Deserialize, Serialize};

use crate::engine::finite;
use crate::{Cancel, Engine, Error, Result, Sampling, Session};

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
    /// Its text without special tokens.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
}

impl Engine {
    /// Generates one answer to a prompt that was read; the session can be used again after it.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if a stop was asked for, [`Error::Ops`] if the device failed.
    pub async fn generate(
        &self,
        session: &mut Session,
        generation: &Generation,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Generated> {
        let Generation { sampling, sample, max_tokens, .. } = *generation;
        sampling.check()?;
        session.cache.truncate(session.prompt.len());
        let mut detokenizer = self.tokenizer.detokenizer(true);
        let (mut ids, mut text) = (Vec::new(), String::new());
        let mut logits = session.logits.clone();
        let stop = loop {
            if ids.len() == max_tokens {
                break StopReason::MaxTokens;
            }
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let (id, on_device) = self.choose(logits, &session.prompt, &ids, generation).await?;
            ids.push(id);
            if self.stop.contains(id) && !generation.ignore_stop {
                break StopReason::EndOfText;
            }
            let piece = detokenizer.push(id)?;
            text += &piece;
            on_event(Event::Token { sample, id, text: &piece });
            if ids.len() == max_tokens {
                break StopReason::MaxTokens; // nobody reads the logits after the last token
            }
            logits = self.model.step(on_device, &mut session.cache)?;
        };
        let rest = detokenizer.finish()?;
        text += &rest;
        on_event(Event::Ended { sample, stop });
        Ok(Generated { ids, text, stop })
    }

    /// The next token, on the host and on the device.
    async fn choose(
        &self,
        logits: Tensor<2>,
        prompt: &[u32],
        answer: &[u32],
        generation: &Generation,
    ) -> Result<(u32, Tensor<1, Int>)> {
        let sampling = &generation.sampling;
        if sampling.is_plain_greedy() {
            let on_device = argmax(logits);
            let ids = read_i32(on_device.clone()).await?;
            return Ok((ids[0] as u32, on_device));
        }
        let mut logits = finite(read_f32(logits).await?)?;
        let draw = uniform(generation.seed, generation.sample, answer.len() as u32);
        let id = sampling.choose(&mut logits, prompt, answer, draw);
        Ok((id, tensor_i32(vec![id as i32], [1], &self.compute.device)))
    }
}
