//! What a batch of answers in progress keeps on the device, and its step from token to token.

use burn::backend::wgpu::{CubeBackend, CubeTensor};
use burn::tensor::{Device, Int, Tensor};
use globe_shaders::Kernel;

use crate::launch::{launch, words};
use crate::transfer::overwrite_i32;
use crate::{Error, Result, tensor_f32, tensor_i32};

/// Stop tokens that the kernel compares with.
pub const MAX_STOP_TOKENS: usize = 4;

/// State of `rows` answers to one prompt. Kernels change it in place.
#[derive(Clone, Debug)]
pub struct BatchState {
    /// Last token of each row: `[rows]`.
    pub tokens: Tensor<1, Int>,
    /// Logarithm of its probability: `[rows]`.
    pub logp: Tensor<1>,
    /// Prefix, first slot of the tail, length of the tail, rotary position: `[rows, 4]`.
    pub places: Tensor<2, Int>,
    /// Rotary positions: `[3, rows]`.
    pub positions: Tensor<2, Int>,
    /// Where the next keys and values go: `[rows]`.
    pub slots: Tensor<1, Int>,
    /// Sample of the row, and how many tokens it has drawn: `[rows, 2]`.
    pub draws: Tensor<2, Int>,
    /// Token and bits of its `logp` for every step and row, then whether each row is finished:
    /// `[steps * rows * 2 + rows]`. A finished row notes the token -1.
    pub history: Tensor<1, Int>,
    /// How often each token occurred: `[rows * vocab]`, or one word if nobody asks.
    pub seen: Tensor<1, Int>,
    /// Steps that `history` has room for.
    pub steps: usize,
    /// Whether `seen` is kept.
    pub penalized: bool,
}

/// Where a batch starts.
#[derive(Clone, Debug)]
pub struct BatchStart<'a> {
    /// Tokens of the prompt, which all rows share.
    pub prefix: usize,
    /// Slots of each row's own tokens.
    pub tail: usize,
    /// Rotary position of the first token after the prompt.
    pub position: i32,
    /// Number of each row's sample: its random numbers depend on it.
    pub samples: &'a [u32],
    /// The prompt, if penalties are to count its tokens, and the size of the vocabulary.
    pub penalties: Option<(&'a [u32], usize)>,
}

/// The words of a state before the first token is chosen, as [`BatchState`] lays them out.
struct Words {
    places: Vec<i32>,
    positions: Vec<i32>,
    slots: Vec<i32>,
    draws: Vec<i32>,
    history: Vec<i32>,
    seen: Vec<i32>,
}

impl Words {
    fn of(start: &BatchStart) -> Self {
        let BatchStart { prefix, tail, position, samples, penalties } = *start;
        let rows = samples.len();
        let first_slot = |row: usize| (prefix + row * tail) as i32;
        let places = (0..rows).flat_map(|r| [prefix as i32, first_slot(r), 0, position - 1]);
        let draws = samples.iter().flat_map(|sample| [*sample as i32, 0]);
        let seen = match penalties {
            None => vec![0],
            Some((prompt, vocab)) => {
                let mut seen = vec![0; vocab];
                for id in prompt {
                    // The highest bit: in the prompt. The others count the answer.
                    seen[*id as usize] = i32::MIN;
                }
                seen.repeat(rows)
            }
        };
        Self {
            places: places.collect(),
            positions: vec![position - 1; 3 * rows],
            slots: (0..rows).map(first_slot).collect(),
            draws: draws.collect(),
            history: vec![0; (2 * tail + 1) * rows],
            seen,
        }
    }
}

impl BatchState {
    /// The state before the first token is chosen.
    pub fn new(start: &BatchStart, device: &Device) -> Self {
        let rows = start.samples.len();
        let Words { places, positions, slots, draws, history, seen } = Words::of(start);
        let (n_history, n_seen) = (history.len(), seen.len());
        Self {
            tokens: tensor_i32(vec![0; rows], [rows], device),
            logp: tensor_f32(vec![0.0; rows], [rows], device),
            places: tensor_i32(places, [rows, 4], device),
            positions: tensor_i32(positions, [3, rows], device),
            slots: tensor_i32(slots, [rows], device),
            draws: tensor_i32(draws, [rows, 2], device),
            history: tensor_i32(history, [n_history], device),
            seen: tensor_i32(seen, [n_seen], device),
            steps: start.tail,
            penalized: start.penalties.is_some(),
        }
    }

    /// Puts the state to another start with as many rows and steps, in the same buffers.
    ///
    /// # Errors
    /// [`Error::Shape`] if it has more or fewer, [`Error::Device`] on the CPU path.
    pub fn restart(&mut self, start: &BatchStart) -> Result<()> {
        let Words { places, positions, slots, draws, history, seen } = Words::of(start);
        overwrite_i32(&self.places, places)?;
        overwrite_i32(&self.positions, positions)?;
        overwrite_i32(&self.slots, slots)?;
        overwrite_i32(&self.draws, draws)?;
        overwrite_i32(&self.history, history)?;
        overwrite_i32(&self.seen, seen)
    }

    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.tokens.dims()[0]
    }

    /// Vocabulary that `seen` counts, 0 if it does not.
    fn vocab(&self) -> usize {
        if self.penalized { self.seen.dims()[0] / self.rows() } else { 0 }
    }
}

/// Notes the chosen tokens in the history and moves every row on by one. A row that chose one of
/// `stop` is finished, notes -1 from then on and stays where it is.
///
/// # Errors
/// [`Error::Unsupported`] for more than [`MAX_STOP_TOKENS`] or on the CPU path.
pub fn advance(state: &BatchState, stop: &[u32]) -> Result<()> {
    let what = "stop tokens";
    crate::shapes::supported(
        "advance",
        what,
        stop.len(),
        "at most 4",
        stop.len() <= MAX_STOP_TOKENS,
    )?;
    let rows = state.rows();
    let ids = |i: usize| stop.get(i).map_or(u32::MAX, |id| *id);
    let params = words![
        rows,
        state.vocab(),
        state.steps,
        u32::from(state.penalized),
        ids(0),
        ids(1),
        ids(2),
        ids(3)
    ];
    let tensors = [
        &int(&state.tokens)?,
        &on_gpu(state.logp.clone().try_into_primitive::<CubeBackend>())?,
        &int(&state.places)?,
        &int(&state.positions)?,
        &int(&state.slots)?,
        &int(&state.draws)?,
        &int(&state.history)?,
        &int(&state.seen)?,
    ];
    launch(Kernel::Advance, &tensors, &params, [1, 1, 1]);
    Ok(())
}

/// The buffer of an index tensor on the GPU.
pub(crate) fn int<const D: usize>(tensor: &Tensor<D, Int>) -> Result<CubeTensor> {
    on_gpu(tensor.clone().try_into_primitive::<CubeBackend>())
}

/// Errors on the CPU path, where tokens are chosen on the host.
pub(crate) fn on_gpu<E: std::fmt::Debug>(
    primitive: std::result::Result<CubeTensor, E>,
) -> Result<CubeTensor> {
    primitive
        .map_err(|e| Error::Device { reason: format!("a GPU kernel on another device: {e:?}") })
}
