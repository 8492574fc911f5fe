// Scales of four outputs, two blocks at a time. After `packed`, beside a binding `scales`.

// The words with the scales of two blocks.
fn scales_at(at: vec4<u32>) -> vec4<u32> {
    return vec4(scales[at.x], scales[at.y], scales[at.z], scales[at.w]);
}

fn scales_of(words: vec4<u32>, b: u32) -> vec4<f32> {
    return vec4(block_scale(words.x, b), block_scale(words.y, b), block_scale(words.z, b), block_scale(words.w, b));
}
