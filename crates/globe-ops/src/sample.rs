//! The next token of every row, chosen on the device.

use burn::backend::wgpu::CubeBackend;
use burn::tensor::{DType, Tensor};
use globe_shaders::{Kernel, Program, Reduce};

use crate::advance::{int, on_gpu};
use crate::launch::{launch, output, words};
use crate::reduce::reduce;
use crate::shapes::expect;
use crate::{BatchState, Result};

/// Tokens of a workgroup of `sample_parts.wgsl`.
const PART: usize = 4096;
/// Numbers that it leaves.
const FOUND: usize = 8;
/// lavapipe ends the loops of an invocation after 65,535 turns, those of all of them together, and says nothing.
const MOST_TURNS: usize = 50_000;

/// How tokens are chosen. The order of the steps is that of vLLM: penalties, temperature, top-k,
/// top-p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleOptions {
    /// Logits are divided by it; 0 takes the most likely token.
    pub temperature: f32,
    /// Only the k most likely tokens, equals of the last included; 0 keeps all.
    pub top_k: usize,
    /// Only the fewest tokens whose probabilities reach this; 1 keeps all.
    pub top_p: f32,
    /// Logits of tokens seen in prompt or answer shrink by this factor; 1 is off.
    pub repetition: f32,
    /// Taken from a logit for each time its token occurs in the answer.
    pub frequency: f32,
    /// Taken once from the logit of each token that occurs in the answer.
    pub presence: f32,
    /// Names the run.
    pub seed: u64,
}

impl Default for SampleOptions {
    /// The most likely token, always.
    fn default() -> Self {
        let (temperature, top_k, top_p, repetition) = (0.0, 0, 1.0, 1.0);
        Self { temperature, top_k, top_p, repetition, frequency: 0.0, presence: 0.0, seed: 0 }
    }
}

/// Turns of an invocation's loops where one workgroup takes a row: top-k and top-p look at all of it 32 times each.
fn turns(reduce: Reduce, vocab: usize, options: &SampleOptions) -> usize {
    let searches = usize::from(options.top_k > 0) + usize::from(options.top_p < 1.0);
    vocab.div_ceil(reduce.width()) * (5 + 33 * searches)
}

/// Numbers of a row that [`sample`] leaves between its two halves, where it has two.
pub const fn sample_scratch(vocab: usize) -> usize {
    FOUND * vocab.div_ceil(PART)
}

/// Chooses `state.tokens` from `logits: [rows, vocab]`, which penalties and temperature change in
/// place, and notes in `state.logp` how likely each was under them.
///
/// # Errors
/// [`crate::Error::Shape`] if the rows differ, [`crate::Error::Device`] on the CPU path.
pub fn sample(logits: Tensor<2>, state: &BatchState, options: &SampleOptions) -> Result<()> {
    let [rows, vocab] = logits.dims();
    expect("sample", "logits", [rows], [state.rows()])?;
    let params = words![
        vocab,
        options.top_k,
        u32::from(state.penalized),
        options.seed as u32,
        (options.seed >> 32) as u32,
        options.temperature,
        options.top_p,
        options.repetition,
        options.frequency,
        options.presence
    ];
    let logits = on_gpu(logits.try_into_primitive::<CubeBackend>())?;
    let (seen, draws) = (int(&state.seen)?, int(&state.draws)?);
    let tokens = int(&state.tokens)?;
    let logp = on_gpu(state.logp.clone().try_into_primitive::<CubeBackend>())?;
    let rows = rows as u32;
    match reduce(&logits) {
        reduce if reduce == Reduce::Wide || turns(reduce, vocab, options) > MOST_TURNS => {
            let parts = vocab.div_ceil(PART);
            let found = output(&logits, [rows as usize, parts, FOUND], DType::F32);
            let tensors = [&logits, &seen, &draws, &found];
            launch(Kernel::SampleParts, &tensors, &params, [parts as u32, rows, 1]);
            let tensors = [&logits, &draws, &found, &tokens, &logp];
            launch(Kernel::SampleMerge, &tensors, &params, [rows, 1, 1]);
        }
        narrow => {
            let program = Program { reduce: Some(narrow), ..Kernel::Sample.into() };
            let tensors = [&logits, &seen, &draws, &tokens, &logp];
            launch(program, &tensors, &params, [rows, 1, 1]);
        }
    }
    Ok(())
}
