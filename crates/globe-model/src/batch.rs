//! Several answers to one prompt at once, stepping from token to token on the device.

use globe_ops::{
    BatchStart, BatchState, Compute, MAX_STOP_TOKENS, RawLoop, SampleOptions, StepGraph, Tensor,
    advance, gather_rows, read_i32_now, sample, tensor_i32,
};

use crate::{Cache, Error, Model, Result};

/// Answers in progress. The device holds their state; the host replays one recorded step after
/// the other and reads tokens behind it.
pub struct Batch {
    state: BatchState,
    options: SampleOptions,
    stop: Vec<u32>,
    graph: Option<StepGraph>,
    drawn: usize,
}

/// Tokens of a batch as far as they are known.
pub struct Drawn {
    words: Vec<i32>,
    rows: usize,
    /// Tokens that each row has drawn.
    pub steps: usize,
}

impl Drawn {
    /// Token `step` of a row and the logarithm of its probability; `None` once the row is finished.
    pub fn token(&self, step: usize, row: usize) -> Option<(u32, f32)> {
        let at = 2 * (step * self.rows + row);
        let id = u32::try_from(self.words[at]).ok()?;
        Some((id, f32::from_bits(self.words[at + 1] as u32)))
    }
}

impl Batch {
    /// Chooses the first token of every row from the `logits: [1, vocab_size]` after a prompt.
    ///
    /// `samples` numbers the rows; `prompt` is given if penalties are to count its tokens.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`] if the cache has fewer tails, [`Error::Ops`] on the CPU path.
    pub fn start(
        cache: &Cache,
        logits: &Tensor<2>,
        samples: &[u32],
        prompt: Option<&[u32]>,
        options: SampleOptions,
        stop: &[u32],
    ) -> Result<Self> {
        let (rows, fits) = (samples.len(), cache.rows_after(cache.len()));
        if rows > fits {
            return Err(Error::BatchTooLarge { rows, fits });
        }
        let ([_, vocab], device) = (logits.dims(), logits.device());
        let start = BatchStart {
            prefix: cache.len(),
            tail: cache.capacity() - cache.len(),
            position: cache.len() as i32 + cache.rope_delta,
            samples,
            penalties: prompt.map(|prompt| (prompt, vocab)),
        };
        let state = BatchState::new(&start, &device);
        let stop = stop[..stop.len().min(MAX_STOP_TOKENS)].to_vec();
        let first = gather_rows(logits, tensor_i32(vec![0; rows], [rows], &device));
        sample(first, &state, &options)?;
        advance(&state, &stop)?;
        Ok(Self { state, options, stop, graph: None, drawn: 1 })
    }

    /// Tokens that each row has drawn, or soon will have.
    pub fn drawn(&self) -> usize {
        self.drawn
    }

    /// Draws one more token per row; does not wait for it. The first step is recorded, the
    /// others replay the recording.
    ///
    /// # Errors
    /// [`Error::CacheFull`] if the tails are full, [`Error::Ops`] if the device failed.
    pub fn step(&mut self, model: &Model, cache: &Cache) -> Result<()> {
        if self.drawn == self.state.steps {
            let (used, capacity) = (cache.len() + self.drawn, cache.capacity());
            return Err(Error::CacheFull { used, wanted: 1, capacity });
        }
        match &self.graph {
            Some(graph) => graph.replay()?,
            None => {
                let step = || model.step_batch(&self.state, cache, &self.options, &self.stop);
                self.graph = Some(StepGraph::capture(&self.state.tokens, step)?);
            }
        }
        self.drawn += 1;
        Ok(())
    }

    /// Draws one more token per row, and gives what was launched for it to wgpu alone: see [`RawLoop`].
    /// Each run of it draws another token.
    ///
    /// # Errors
    /// As [`Batch::step`].
    pub fn raw_loop(&mut self, model: &Model, cache: &Cache, compute: &Compute) -> Result<RawLoop> {
        self.drawn += 1;
        RawLoop::of(compute, || model.step_batch(&self.state, cache, &self.options, &self.stop))
    }

    /// Kernels that one step dispatches, once one was recorded.
    pub fn n_dispatches(&self) -> Option<usize> {
        self.graph.as_ref().map(StepGraph::n_dispatches)
    }

    /// What was drawn so far. The copy is ordered now, behind the steps so far and before later
    /// ones; only its arrival is waited for, and must be: see [`read_i32_now`].
    pub fn read(&self) -> impl Future<Output = Result<Drawn>> + use<> {
        let (rows, steps) = (self.state.rows(), self.drawn);
        let words = read_i32_now(&self.state.history);
        async move { Ok(Drawn { words: words.await?, rows, steps }) }
    }
}
