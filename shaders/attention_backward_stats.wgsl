// What the backward pass of attention needs of each query: the logarithm of its sum of weights,
// delta = sum(dy * y), its first key and its end key (arXiv 2307.08691, section 2.3).
//
// One invocation per query head. Dispatch (x, y, 1), `stride` = 256 * x.
// Oracle: globe_ops::attention_backward, default body.

struct Params {
    rows: u32, // tokens * n_heads
    n_heads: u32,
    quads: u32, // head_dim / 4
    keys: u32,
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;         // [tokens, n_heads, quads]
@group(0) @binding(1) var<storage, read_write> dy: array<vec4<f32>>;        // [tokens, n_heads, quads]
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;             // [tokens, n_heads]
@group(0) @binding(3) var<storage, read_write> ranges: array<vec2<i32>>;    // [tokens] first key and end
@group(0) @binding(4) var<storage, read_write> stats: array<vec4<u32>>;     // [tokens, n_heads] lse and delta as bits, first key, end
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y * params.stride + id.x;
    if row >= params.rows {
        return;
    }
    var sum = vec4(0.0);
    for (var d = 0u; d < params.quads; d++) {
        sum += y[row * params.quads + d] * dy[row * params.quads + d];
    }
    let delta = (sum.x + sum.y) + (sum.z + sum.w);
    let range = vec2<u32>(max(ranges[row / params.n_heads], vec2(0)));
    let end = min(range.y, params.keys);
    stats[row] = vec4(bitcast<u32>(lse[row]), bitcast<u32>(delta), range.x, end);
}
