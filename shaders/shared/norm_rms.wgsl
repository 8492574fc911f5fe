// Inputs divided by their root mean square and multiplied by `norm`, which has whole blocks, zeros past its width. Beside
// `params`, the last binding.

@group(0) @binding(6) var<storage, read_write> norm: array<array<vec4<f32>, 8>>; // [blocks]
@group(0) @binding(7) var<uniform> params: Params;

// By what two quads of a block are multiplied, from quad `i` on.
fn norm_weights(b: u32, i: u32) -> mat2x4<f32> {
    let block = &norm[b];
    return mat2x4((*block)[i], (*block)[i + 1u]);
}

fn squares(quad: vec4<f32>) -> f32 {
    return dot(quad, quad);
}

// One over the root of the mean square of a row.
fn one_over_root(sum_of_squares: f32) -> f32 {
    return inverseSqrt(sum_of_squares / params.norm_dim + params.eps);
}
