// dx = r * (g - x * r * r * mean(g * x)) + residual with g = dy * weight and
// r = 1 / sqrt(mean(x * x) + eps): the gradient of rms_norm by its input, one row per workgroup.
//
// Dispatch (x, y, 1) with row = y * groups_x + x. `dim` need not be a multiple of WG.
// Oracle: globe_ops::rms_norm_backward, default body.

#import reduce

struct Params {
    rows: u32,
    dim: u32,
    groups_x: u32,
    eps: f32,
    residual: u32, // 0: it is not read
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;           // [rows, dim]
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;      // [dim]
@group(0) @binding(2) var<storage, read_write> dy: array<f32>;          // [rows, dim]
@group(0) @binding(3) var<storage, read_write> residual: array<f32>;    // [rows, dim]
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;          // [rows, dim]
@group(0) @binding(5) var<uniform> params: Params;

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
    var sum_gx = 0.0;
    for (var i = local; i < params.dim; i += WG) {
        let value = x[base + i];
        sum_sq += value * value;
        sum_gx += value * dy[base + i] * weight[i];
    }
    let n = f32(params.dim);
    let r = inverseSqrt(workgroup_sum(local, sum_sq) / n + params.eps);
    let mean_gx = workgroup_sum(local, sum_gx) / n;
    for (var i = local; i < params.dim; i += WG) {
        var sum = r * (dy[base + i] * weight[i] - x[base + i] * r * r * mean_gx);
        if params.residual != 0u {
            sum += residual[base + i];
        }
        dx[base + i] = sum;
    }
}
