// The parts that attention_split.wgsl left, to one output: y = sum of parts / sum of weights.
//
// Dispatch (n_heads, rows, 1), one head of one row per workgroup.
// Oracle: globe_ops::attention_step, default body.

const WG: u32 = 32u;
const KEYS: u32 = 64u; // keys per part
const LOWEST: f32 = -1e30;

struct Params {
    n_heads: u32,
    quads: u32, // head_dim / 4
    chunks: u32,
}

@group(0) @binding(0) var<storage, read_write> sums: array<vec4<f32>>;     // [rows, n_heads, chunks, quads]
@group(0) @binding(1) var<storage, read_write> stats: array<vec2<f32>>;    // [rows, n_heads, chunks]
@group(0) @binding(2) var<storage, read_write> places: array<i32>;         // [rows, prefix + tail start + tail length + position]
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;        // [rows, n_heads, quads]
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.y;
    let head = row * params.n_heads + group.x;
    let len = u32(places[4u * row] + places[4u * row + 2u]);
    let parts = min((len + KEYS - 1u) / KEYS, params.chunks);
    let first = head * params.chunks;
    var highest = LOWEST;
    for (var i = 0u; i < parts; i++) {
        highest = max(highest, stats[first + i].x);
    }
    for (var d = local; d < params.quads; d += WG) {
        var total = 0.0;
        var sum = vec4(0.0);
        for (var i = 0u; i < parts; i++) {
            let part = stats[first + i];
            let weight = exp(part.x - highest);
            total += part.y * weight;
            sum += sums[(first + i) * params.quads + d] * weight;
        }
        y[head * params.quads + d] = sum / max(total, 1e-30);
    }
}
