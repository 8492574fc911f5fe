// Blocks of 32 weights as 16-bit floats: value 2i is the low half of word i. Needs no f16 feature.

const VECS: u32 = 4u; // vec4<u32> per block
const PER_VEC: u32 = 2u; // quads in a vec4<u32>
const SCALED: bool = false;

alias Block = array<vec4<u32>, VECS>;

fn halves(words: vec2<u32>) -> vec4<f32> {
    return vec4(unpack2x16float(words.x), unpack2x16float(words.y));
}

// Values 4j .. 4j + 4 of a vec4 of words.
fn vec_values(vector: vec4<u32>, j: u32) -> vec4<f32> {
    return halves(vec2(vector[2u * j], vector[2u * j + 1u]));
}

// Values 4k .. 4k + 4 of a block.
fn values(block: Block, k: u32) -> vec4<f32> {
    return vec_values(block[k / PER_VEC], k % PER_VEC);
}

// Weights are at their places for `block_dot`, and as they are.
const PLACES: vec4<f32> = vec4(1.0);
const EXCESS: f32 = 0.0;

alias Unit = vec4<u32>; // of eight values

fn unit_values(unit: Unit) -> mat2x4<f32> {
    return mat2x4(halves(unit.xy), halves(unit.zw));
}
