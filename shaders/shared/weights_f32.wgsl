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

alias Unit = array<vec4<u32>, 2>; // of eight values

fn unit_values(unit: Unit) -> mat2x4<f32> {
    return mat2x4(bitcast<vec4<f32>>(unit[0]), bitcast<vec4<f32>>(unit[1]));
}
