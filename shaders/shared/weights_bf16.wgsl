// Blocks of 32 weights as bfloat16, the high halves of f32: value 2i is the low half of word i.

const VECS: u32 = 4u; // vec4<u32> per block
const PER_VEC: u32 = 2u; // quads in a vec4<u32>
const SCALED: bool = false;

alias Block = array<vec4<u32>, VECS>;

// Values 4j .. 4j + 4 of a vec4 of words.
fn vec_values(vector: vec4<u32>, j: u32) -> vec4<f32> {
    let word = 2u * j;
    let halves = vec4(vector[word] << 16u, vector[word], vector[word + 1u] << 16u, vector[word + 1u]);
    return bitcast<vec4<f32>>(halves & vec4(0xffff0000u));
}

// Values 4k .. 4k + 4 of a block.
fn values(block: Block, k: u32) -> vec4<f32> {
    return vec_values(block[k / PER_VEC], k % PER_VEC);
}
