// Blocks of 32 weights in 4 bits: byte j of word i holds value 8i + j below and 8i + 4 + j above.

const VECS: u32 = 1u; // vec4<u32> per block
const PER_VEC: u32 = 8u; // quads in a vec4<u32>
const SCALED: bool = true;

alias Block = array<vec4<u32>, VECS>;

// Values 4j .. 4j + 4 of a vec4 of words, before their scale.
fn vec_values(vector: vec4<u32>, j: u32) -> vec4<f32> {
    let word = vector[j / 2u] >> (4u * (j & 1u));
    let nibbles = vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u) & vec4(15u);
    return vec4<f32>(vec4<i32>(nibbles) - vec4(8));
}

// Values 4k .. 4k + 4 of a block, before its scale.
fn values(block: Block, k: u32) -> vec4<f32> {
    return vec_values(block[0], k);
}

// What inputs are multiplied by for `block_dot`: it leaves nibbles at their places in the word.
const PLACES: vec4<f32> = vec4(1.0, 0.00390625, 0.0000152587890625, 0.000000059604644775390625); // 256^-i
const EXCESS: f32 = 8.0; // of the weights in `block_dot`

// Eight nibbles, times what their places make them larger.
fn nibbles(word: u32) -> mat2x4<f32> {
    let places = vec4(0xfu, 0xf00u, 0xf0000u, 0xf000000u);
    let lower = vec4<f32>(bitcast<vec4<i32>>(vec4(word) & places));
    let upper = vec4<f32>(bitcast<vec4<i32>>(vec4(word >> 4u) & places));
    return mat2x4(lower, upper);
}
