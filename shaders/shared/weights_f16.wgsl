// Blocks of 32 weights as 16-bit floats: value 2i is the low half of word i. Needs no f16 feature.

const VECS: u32 = 4u; // vec4<u32> per block
const SCALED: bool = false;

alias Block = array<vec4<u32>, VECS>;

// Values 4k .. 4k + 4 of a block.
fn values(block: Block, k: u32) -> vec4<f32> {
    let word = 2u * (k & 1u);
    let vector = block[k / 2u];
    return vec4(unpack2x16float(vector[word]), unpack2x16float(vector[word + 1u]));
}
