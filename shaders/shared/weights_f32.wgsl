// Blocks of 32 weights as they are.

const VECS: u32 = 8u; // vec4<u32> per block
const PER_VEC: u32 = 1u; // quads in a vec4<u32>
const SCALED: bool = false;

alias Block = array<vec4<u32>, VECS>;

// The values of a vec4 of words.
fn vec_values(vector: vec4<u32>, j: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vector);
}

// Values 4k .. 4k + 4 of a block.
fn values(block: Block, k: u32) -> vec4<f32> {
    return vec_values(block[k / PER_VEC], k % PER_VEC);
}

// Weights are at their places for `block_dot`, and as they are.
const PLACES: vec4<f32> = vec4(1.0);
const EXCESS: f32 = 0.0;

fn two_dot(first: vec4<u32>, second: vec4<u32>, a: vec4<f32>, b: vec4<f32>) -> f32 {
    return dot(bitcast<vec4<f32>>(first), a) + dot(bitcast<vec4<f32>>(second), b);
}

// The weights of a block times inputs.
fn block_dot(block: Block, x: array<vec4<f32>, 8>) -> f32 {
    return (two_dot(block[0], block[1], x[0], x[1]) + two_dot(block[2], block[3], x[2], x[3]))
        + (two_dot(block[4], block[5], x[4], x[5]) + two_dot(block[6], block[7], x[6], x[7]));
}
