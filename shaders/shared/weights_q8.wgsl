// Blocks of 32 weights in 8 bits: byte j of word i is the signed value 4i + j.

const VECS: u32 = 2u; // vec4<u32> per block
const PER_VEC: u32 = 4u; // quads in a vec4<u32>
const SCALED: bool = true;

alias Block = array<vec4<u32>, VECS>;

fn bytes(four: u32) -> vec4<f32> {
    let word = bitcast<i32>(four);
    return vec4<f32>(vec4<i32>(word << 24u, word << 16u, word << 8u, word) >> vec4(24u));
}

// Values 4j .. 4j + 4 of a vec4 of words, before their scale.
fn vec_values(vector: vec4<u32>, j: u32) -> vec4<f32> {
    return bytes(vector[j]);
}

// Values 4k .. 4k + 4 of a block, before its scale.
fn values(block: Block, k: u32) -> vec4<f32> {
    return vec_values(block[k / PER_VEC], k % PER_VEC);
}

// Weights are at their places for `block_dot`, and as they are.
const PLACES: vec4<f32> = vec4(1.0);
const EXCESS: f32 = 0.0;
