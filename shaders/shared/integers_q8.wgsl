// Blocks of 32 weights as in weights_q8.wgsl, multiplied as integers.

const VECS: u32 = 2u; // vec4<u32> per block

alias Block = array<vec4<u32>, VECS>;

// The sum of the products with 32 integers of 8 bits, four in a word.
fn block_dot(block: Block, low: vec4<u32>, high: vec4<u32>) -> i32 {
    var sum = 0;
    for (var i = 0u; i < 4u; i++) {
        sum += dot4I8Packed(block[0][i], low[i]) + dot4I8Packed(block[1][i], high[i]);
    }
    return sum;
}
