// Blocks of 32 weights as they are.

const VECS: u32 = 8u; // vec4<u32> per block
const SCALED: bool = false;

alias Block = array<vec4<u32>, VECS>;

// Values 4k .. 4k + 4 of a block.
fn values(block: Block, k: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(block[k]);
}
