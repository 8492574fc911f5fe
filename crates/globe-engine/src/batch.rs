//! Several answers at once: the device draws, the host reads behind it.

use std::collections::VecDeque;
use std::ops::Range;

use globe_model::{Batch, Drawn};
use web_time::Instant;

use crate::generate::Answer;
use crate::pace::{Pace, STEPS_PER_LOOK};
use crate::room::Room;
use crate::{Cancel, Engine, Error, Event, Generated, Generation, Result, Session};

/// Looks under way at the same time, so that the device never waits for the host.
const LOOKS_AHEAD: usize = 2;

impl Engine {
    /// Generates `answers` answers, numbered from `generation.sample` on, as many at once as the
    /// session has room for. Tokens of different answers arrive in turn.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if a stop was asked for, [`Error::Ops`] if the device failed,
    /// [`Error::NotFinite`] if the model gives no numbers.
    pub async fn generate_all(
        &self,
        session: &mut Session,
        generation: &Generation,
        answers: u32,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<Generated>> {
        generation.sampling.check()?;
        session.room.set_sound(false);
        session.room.cache.truncate(session.prompt.len());
        let samples = generation.sample..generation.sample + answers;
        let all = if self.model.can_batch() && generation.max_tokens > 0 {
            self.draw(session, generation, samples, cancel, on_event).await?
        } else {
            let mut all = Vec::with_capacity(samples.len());
            for sample in samples {
                let one = Generation { sample, ..*generation };
                all.push(self.generate_on_host(session, &one, cancel, on_event).await?);
            }
            all
        };
        session.room.set_sound(true);
        Ok(all)
    }

    /// Answers `samples`, chosen on the device.
    async fn draw(
        &self,
        session: &mut Session,
        generation: &Generation,
        samples: Range<u32>,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<Generated>> {
        let mut all = Vec::with_capacity(samples.len());
        let mut line = Line { waiting: samples, batch: None, parts: Vec::new() };
        let mut looks = VecDeque::new();
        let drawing = async {
            loop {
                if cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                if looks.len() < LOOKS_AHEAD
                    && let Some(look) = self.hand_over(&mut line, session, generation)?
                {
                    looks.push_back((line.parts.len() - 1, look));
                    continue;
                }
                let Some((part, look)) = looks.pop_front() else { return Ok(()) };
                let drawn = look.await?;
                line.arrived(part, &drawn);
                let part = &mut line.parts[part];
                self.take(part, &drawn, generation, on_event)?;
                if part.has_ended() {
                    for answer in part.answers.drain(..) {
                        all.push(answer.finish(on_event)?);
                    }
                }
            }
        };
        let ended = drawing.await;
        for (_, look) in looks {
            // Nobody needs its tokens, but a read that is dropped half way leaves its staging
            // buffer mapped, and the next read that is given the buffer loses the device.
            drop(look.await);
        }
        ended.map(|()| all)
    }

    /// Hands the next steps to the device, and looks at their tokens. When the answers in progress need no more,
    /// the next ones begin: the device does not wait until their last tokens have arrived. `None` when all answers
    /// have all their steps.
    fn hand_over<'a>(
        &'a self,
        line: &mut Line<'a>,
        session: &mut Session,
        generation: &Generation,
    ) -> Result<Option<impl Future<Output = globe_model::Result<Drawn>> + use<>>> {
        let last = generation.max_tokens;
        let begins = line.needs_no_steps(last);
        if begins {
            session.room.batches.extend(line.batch.take());
            let samples: Vec<u32> =
                line.waiting.by_ref().take(session.room.answers().max(1)).collect();
            if samples.is_empty() {
                return Ok(None);
            }
            line.batch = Some(self.start(session, generation, &samples)?);
            let answers = samples.iter().map(|n| self.answer(*n)).collect();
            line.parts.push(Part { answers, seen: 0 });
        }
        let Some((batch, pace)) = &mut line.batch else { return Ok(None) };
        // The first token need not wait for slow steps.
        if !begins || pace.is_quick() {
            let end = last.min(batch.drawn() + STEPS_PER_LOOK);
            while batch.drawn() < end {
                let shared = pace.steps().min(end - batch.drawn());
                batch.steps(shared, &self.model, &session.room.cache)?;
            }
        }
        Ok(Some(batch.read()))
    }

    /// A batch that was kept and differs in nothing that was recorded, with its pace, else a new one.
    fn start(
        &self,
        session: &mut Session,
        generation: &Generation,
        samples: &[u32],
    ) -> Result<(Batch, Pace)> {
        let sampling = &generation.sampling;
        let options = sampling.on_device(generation.seed);
        let prompt = sampling.has_penalties().then_some(&session.prompt[..]);
        let stop = if generation.ignore_stop { &[][..] } else { &self.stop.eos[..] };
        let (Room { cache, batches, .. }, logits) = (&mut *session.room, &session.logits);
        let (rows, penalized) = (samples.len(), prompt.is_some());
        let fits =
            |(batch, _): &(Batch, Pace)| batch.can_restart(cache, rows, penalized, &options, stop);
        if let Some(i) = batches.iter().position(fits) {
            let (mut batch, pace) = batches.swap_remove(i);
            batch.restart(cache, logits, samples, prompt)?;
            return Ok((batch, pace));
        }
        // One of the same size would take the memory of this one: its turn is over.
        batches.retain(|(batch, _)| batch.rows() != rows);
        let batch = Batch::start(cache, logits, samples, prompt, options, stop)?;
        Ok((batch, Pace::default()))
    }

    /// Hands out the tokens that are new.
    fn take(
        &self,
        part: &mut Part,
        drawn: &Drawn,
        generation: &Generation,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        for step in part.seen..drawn.steps {
            for (row, answer) in part.answers.iter_mut().enumerate() {
                if answer.stop.is_some() {
                    continue;
                }
                let (id, logp) = drawn.token(step, row).ok_or(Error::NotFinite)?;
                if !logp.is_finite() {
                    return Err(Error::NotFinite);
                }
                self.push(answer, id, logp, generation, on_event)?;
            }
        }
        part.seen = drawn.steps;
        Ok(())
    }
}

/// Answers in the order in which they are drawn.
struct Line<'a> {
    /// Those that have not begun.
    waiting: Range<u32>,
    /// What draws the last part, until it has handed over all steps.
    batch: Option<(Batch, Pace)>,
    parts: Vec<Part<'a>>,
}

impl Line<'_> {
    /// Whether the answers in progress have ended, or have all steps up to the `last`.
    fn needs_no_steps(&self, last: usize) -> bool {
        let has_all = self.batch.as_ref().is_none_or(|(batch, _)| batch.drawn() >= last);
        has_all || self.parts.last().is_none_or(Part::has_ended)
    }

    /// The tokens of a part arrived. The batch of an earlier part may have been another.
    fn arrived(&mut self, part: usize, drawn: &Drawn) {
        if let Some((_, pace)) = self.batch.as_mut().filter(|_| part + 1 == self.parts.len()) {
            pace.arrived(Instant::now(), drawn.steps);
        }
    }
}

/// Answers that are drawn at once; none are left when they have ended.
struct Part<'a> {
    answers: Vec<Answer<'a>>,
    /// Steps whose tokens were handed out.
    seen: usize,
}

impl Part<'_> {
    fn has_ended(&self) -> bool {
        self.answers.iter().all(|answer| answer.stop.is_some())
    }
}
