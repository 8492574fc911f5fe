// Blocks of 32 weights as in weights_q4.wgsl, multiplied as integers.

const VECS: u32 = 1u; // vec4<u32> per block

alias Block = array<vec4<u32>, VECS>;

// The sum of the products with 32 integers of 8 bits, four in a word.
fn block_dot(block: Block, low: vec4<u32>, high: vec4<u32>) -> i32 {
    let inputs = array<u32, 8>(low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w);
    var sum = 0;
    for (var i = 0u; i < 4u; i++) {
        let word = block[0][i];
        // A stored nibble is the weight plus 8.
        sum += dot4I8Packed(word & 0x0f0f0f0fu, inputs[2u * i]) - 8 * dot4I8Packed(0x01010101u, inputs[2u * i]);
        sum += dot4I8Packed((word >> 4u) & 0x0f0f0f0fu, inputs[2u * i + 1u])
            - 8 * dot4I8Packed(0x01010101u, inputs[2u * i + 1u]);
    }
    return sum;
}
