// What the kernels of packed matrices have in common: flags, scales, SwiGLU.

const BIAS: u32 = 1u;
const NORM: u32 = 2u;
const RESIDUAL: u32 = 4u;
const SWIGLU: u32 = 8u;

// The scale of block b, from the word that holds those of two blocks.
fn block_scale(word: u32, b: u32) -> f32 {
    let pair = unpack2x16float(word);
    return select(pair.x, pair.y, (b & 1u) == 1u);
}

fn silu_mul(gate: f32, up: f32) -> f32 {
    return gate / (1.0 + exp(-gate)) * up;
}
