//! Several answers to one prompt at once, stepping from token to token on the device.

use globe_ops::{
    BatchStart, BatchState, MAX_STOP_TOKENS, RawLoop, SampleOptions, StepGraph, Tensor, advance,
    gather_rows, read_i32_now, sample, tensor_i32,
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
        let start = start(cache, logits, samples, prompt)?;
        let state = BatchState::new(&start, &logits.device());
        let stop = stop[..stop.len().min(MAX_STOP_TOKENS)].to_vec();
        let batch = Self { state, options, stop, graph: None, drawn: 1 };
        batch.first(logits)?;
        Ok(batch)
    }

    /// Starts over with another prompt in the same cache. The buffers stay where they are, and what was
    /// recorded holds: see [`Batch::can_restart`].
    ///
    /// # Errors
    /// As [`Batch::start`]; [`Error::Ops`] if it cannot restart.
    pub fn restart(
        &mut self,
        cache: &Cache,
        logits: &Tensor<2>,
        samples: &[u32],
        prompt: Option<&[u32]>,
    ) -> Result<()> {
        self.state.restart(&start(cache, logits, samples, prompt)?)?;
        self.drawn = 1;
        self.graph.iter().for_each(StepGraph::set_behind);
        self.first(logits)
    }

    /// Whether a batch of so many rows in the cache of this one differs from it in nothing that was
    /// recorded.
    pub fn can_restart(
        &self,
        cache: &Cache,
        rows: usize,
        penalized: bool,
        options: &SampleOptions,
        stop: &[u32],
    ) -> bool {
        let stop = &stop[..stop.len().min(MAX_STOP_TOKENS)];
        (self.state.rows(), self.state.steps) == (rows, cache.tail())
            && self.state.penalized == penalized
            && (&self.options, &self.stop[..]) == (options, stop)
    }

    /// Chooses the first token of every row.
    fn first(&self, logits: &Tensor<2>) -> Result<()> {
        let rows = self.state.rows();
        let first = gather_rows(logits, tensor_i32(vec![0; rows], [rows], &logits.device()));
        sample(first, &self.state, &self.options)?;
        Ok(advance(&self.state, &self.stop)?)
    }

    /// Answers that it draws.
    pub fn rows(&self) -> usize {
        self.state.rows()
    }

    /// Tokens that each row has drawn, or soon will have.
    pub fn drawn(&self) -> usize {
        self.drawn
    }

    /// Draws one more token per row; does not wait for it.
    ///
    /// # Errors
    /// As [`Batch::steps`].
    pub fn step(&mut self, model: &Model, cache: &Cache) -> Result<()> {
        self.steps(1, model, cache)
    }

    /// Draws `n` more tokens per row in one submission; does not wait for them. The first step of all is recorded,
    /// the others replay the recording.
    ///
    /// # Errors
    /// [`Error::CacheFull`] if that is more than the tails have room for, [`Error::Ops`] if the device failed.
    pub fn steps(&mut self, n: usize, model: &Model, cache: &Cache) -> Result<()> {
        let left = self.state.steps - self.drawn;
        if n > left {
            let used = cache.len() + self.drawn;
            return Err(Error::CacheFull { used, wanted: n, capacity: used + left });
        }
        let mut again = n;
        if n > 0 && self.graph.is_none() {
            let step = || model.step_batch(&self.state, cache, &self.options, &self.stop);
            self.graph = Some(StepGraph::capture(&self.state.tokens, model.raw_queue(), step)?);
            again -= 1;
        }
        if let Some(graph) = self.graph.as_ref().filter(|_| again > 0) {
            graph.replay(again)?;
        }
        self.drawn += n;
        Ok(())
    }

    /// Whether one command buffer of Vulkan replays a step.
    pub fn is_recorded(&self) -> bool {
        self.graph.as_ref().is_some_and(StepGraph::is_recorded)
    }

    /// A step through wgpu alone, once one was recorded and if all of it is our own. Each run of it draws
    /// another token that [`Batch::drawn`] does not count.
    pub fn raw_loop(&self) -> Option<&RawLoop> {
        self.graph.as_ref()?.raw_loop()
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

/// Where answers begin after what is in the cache.
fn start<'a>(
    cache: &Cache,
    logits: &Tensor<2>,
    samples: &'a [u32],
    prompt: Option<&'a [u32]>,
) -> Result<BatchStart<'a>> {
    let (rows, fits) = (samples.len(), cache.rows_after(cache.len()));
    if rows > fits {
        return Err(Error::BatchTooLarge { rows, fits });
    }
    let [_, vocab] = logits.dims();
    Ok(BatchStart {
        prefix: cache.len(),
        tail: cache.tail(),
        position: cache.len() as i32 + cache.rope_delta,
        samples,
        penalties: prompt.map(|prompt| (prompt, vocab)),
    })
}
