// Blocks of 32 weights in 8 bits: byte j of word i is the signed value 4i + j.

const VECS: u32 = 2u; // vec4<u32> per block
const SCALED: bool = true;

alias Block = array<vec4<u32>, VECS>;

// Values 4k .. 4k + 4 of a block, before its scale.
fn values(block: Block, k: u32) -> vec4<f32> {
    let word = bitcast<i32>(block[k / 4u][k & 3u]);
    return vec4<f32>(vec4<i32>(word << 24u, word << 16u, word << 8u, word) >> vec4(24u));
}
