//! One answer, token by token.

use globe_ops::{read_f32, tensor_i32};
use globe_text::Detokenizer;
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
    /// The photo is encoded or under way.
    Encoded,
    /// The prompt is read.
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
        session.room.cache.truncate(session.prompt.len());
        let mut answer = self.answer(generation.sample);
        let mut logits = session.logits.clone();
        while answer.stop.is_none() && answer.ids.len() < generation.max_tokens {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let mut values = finite(read_f32(logits).await?)?;
            let (seed, sample) = (generation.seed, generation.sample);
            let draw = Draw { seed, sample, position: answer.ids.len() as u32 };
            let (sampling, prompt) = (&generation.sampling, &session.prompt);
            let (id, logp) = sampling.choose(&mut values, prompt, &answer.ids, &draw);
            self.push(&mut answer, id, logp, generation, on_event)?;
            if answer.stop.is_some() {
                break; // nobody reads the logits after the last token
            }
            let id = tensor_i32(vec![id as i32], [1], &self.compute.device);
            logits = self.model.step(id, &mut session.room.cache)?;
        }
        answer.finish(on_event)
    }

    pub(crate) fn answer(&self, sample: u32) -> Answer<'_> {
        let detokenizer = self.reader.tokenizer.detokenizer(true);
        let (ids, logp, text) = (Vec::new(), Vec::new(), String::new());
        Answer { sample, detokenizer, ids, logp, text, stop: None }
    }

    /// Adds a token to an answer and ends it where it must end.
    pub(crate) fn push(
        &self,
        answer: &mut Answer,
        id: u32,
        logp: f32,
        generation: &Generation,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        answer.ids.push(id);
        answer.logp.push(logp);
        if self.stop.contains(id) && !generation.ignore_stop {
            answer.stop = Some(StopReason::EndOfText);
            return Ok(());
        }
        let text = answer.detokenizer.push(id)?;
        answer.text += &text;
        on_event(Event::Token { sample: answer.sample, id, text: &text });
        if answer.ids.len() == generation.max_tokens {
            answer.stop = Some(StopReason::MaxTokens);
        }
        Ok(())
    }
}

/// One answer in progress.
pub(crate) struct Answer<'a> {
    sample: u32,
    detokenizer: Detokenizer<'a>,
    ids: Vec<u32>,
    logp: Vec<f32>,
    text: String,
    pub(crate) stop: Option<StopReason>,
}

impl Answer<'_> {
    pub(crate) fn finish(mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<Generated> {
        let rest = self.detokenizer.finish()?;
        self.text += &rest;
        let stop = self.stop.unwrap_or(StopReason::MaxTokens);
        on_event(Event::Ended { sample: self.sample, text: &rest, stop });
        Ok(Generated { ids: self.ids, logp: self.logp, text: self.text, stop })
    }
}
