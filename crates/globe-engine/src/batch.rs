//! Several answers at once: the device draws, the host reads behind it.

use std::collections::VecDeque;

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
        let room = session.room.answers().max(1) as u32;
        let mut all = Vec::with_capacity(answers as usize);
        let (mut next, end) = (generation.sample, generation.sample + answers);
        while next < end {
            let rows = room.min(end - next);
            let part = Generation { sample: next, ..*generation };
            if self.model.can_batch() {
                all.extend(self.batch(session, &part, rows, cancel, on_event).await?);
            } else {
                for sample in next..next + rows {
                    let one = Generation { sample, ..part };
                    all.push(self.generate_on_host(session, &one, cancel, on_event).await?);
                }
            }
            next += rows;
        }
        session.room.set_sound(true);
        Ok(all)
    }

    /// Answers `generation.sample ..` in one batch of `rows`.
    async fn batch(
        &self,
        session: &mut Session,
        generation: &Generation,
        rows: u32,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<Generated>> {
        let samples: Vec<u32> = (generation.sample..generation.sample + rows).collect();
        let mut answers: Vec<Answer> = samples.iter().map(|n| self.answer(*n)).collect();
        if generation.max_tokens > 0 {
            let (mut batch, mut pace) = self.start(session, generation, &samples)?;
            let cache = &session.room.cache;
            let mut seen = 0;
            let mut looks = VecDeque::from([batch.read()]);
            let drawing = async {
                loop {
                    if cancel.is_cancelled() {
                        return Err(Error::Cancelled);
                    }
                    let steps = STEPS_PER_LOOK.min(generation.max_tokens - batch.drawn());
                    if steps > 0 && looks.len() < LOOKS_AHEAD {
                        let end = batch.drawn() + steps;
                        while batch.drawn() < end {
                            let shared = pace.steps().min(end - batch.drawn());
                            batch.steps(shared, &self.model, cache)?;
                        }
                        looks.push_back(batch.read());
                        continue;
                    }
                    let Some(look) = looks.pop_front() else { return Ok(()) };
                    let drawn = look.await?;
                    pace.arrived(Instant::now(), drawn.steps);
                    self.take(&mut answers, &drawn, seen, generation, on_event)?;
                    seen = drawn.steps;
                    if answers.iter().all(|answer| answer.stop.is_some()) {
                        return Ok(());
                    }
                }
            };
            let ended = drawing.await;
            for look in looks {
                // Nobody needs its tokens, but a read that is dropped half way leaves its staging
                // buffer mapped, and the next read that is given the buffer loses the device.
                drop(look.await);
            }
            ended?;
            session.room.batches.push((batch, pace));
        }
        answers.into_iter().map(|answer| answer.finish(on_event)).collect()
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

    /// Hands out the tokens from step `seen` on.
    fn take(
        &self,
        answers: &mut [Answer],
        drawn: &Drawn,
        seen: usize,
        generation: &Generation,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        for step in seen..drawn.steps {
            for (row, answer) in answers.iter_mut().enumerate() {
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
        Ok(())
    }
}
