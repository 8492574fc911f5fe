//! How long each kernel takes on the adapter at hand, forward and backward.
//!
//! Sizes are those of the shape `0.5b` of `globe bench`. An iteration queues one call; the device
//! is waited for once per sample, so that neither the wait nor the way there counts as the kernel's.

mod attention;
mod backward;
mod forward;
mod linear;
mod rig;

use criterion::Criterion;

use crate::rig::Rig;

/// Values per token between layers.
const HIDDEN: usize = 896;
/// Values per token within an MLP.
const FFN: usize = 4864;
/// Query heads, heads of keys and values, values per head.
const HEADS: [usize; 3] = [14, 2, 64];
/// Tokens that there are.
const VOCAB: usize = 32_000;
/// Tokens of a prompt.
const TOKENS: usize = 256;

fn main() {
    let Some(rig) = Rig::open() else {
        return; // it has said why
    };
    let mut criterion = Criterion::default().configure_from_args();
    linear::all(&mut criterion, &rig);
    attention::all(&mut criterion, &rig);
    forward::all(&mut criterion, &rig);
    backward::all(&mut criterion, &rig);
    criterion.final_summary();
}
