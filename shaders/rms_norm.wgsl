// y = x / sqrt(mean(x * x) + eps) * weight, one row per workgroup.
//
// Dispatch (x, y, 1) with row = y * groups_x + x. `dim` need not be a multiple of WG.
// Oracle: globe_ops::rms_norm, default body.

#import reduce

struct Params {
    rows: u32,
    dim: u32,
    groups_x: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;         // [rows, dim]
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;    // [dim]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;         // [rows, dim]
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.y * params.groups_x + group.x;
    if row >= params.rows {
        return;
    }
    let base = row * params.dim;
    var sum_sq = 0.0;
    for (var i = local; i < params.dim; i += WG) {
        sum_sq += x[base + i] * x[base + i];
    }
    let mean_sq = workgroup_sum(local, sum_sq) / f32(params.dim);
    let scale = inverseSqrt(mean_sq + params.eps);
    for (var i = local; i < params.dim; i += WG) {
        y[base + i] = x[base + i] * scale * weight[i];
    }
}
