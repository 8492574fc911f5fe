// partial[g] = sum over some rows of dy * x / sqrt(mean(x * x) + eps): the gradient of rms_norm by its
// weight. A workgroup takes every `groups`-th row; column_sums adds the parts.
//
// Dispatch (groups, 1, 1), groups <= rows. `dim` need not be a multiple of WG.
// Oracle: globe_ops::rms_norm_backward_weight, default body.

#import reduce

struct Params {
    rows: u32,
    dim: u32,
    groups: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;          // [rows, dim]
@group(0) @binding(1) var<storage, read_write> dy: array<f32>;         // [rows, dim]
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;    // [groups, dim]
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let sums = group.x * params.dim;
    for (var row = group.x; row < params.rows; row += params.groups) {
        let base = row * params.dim;
        var sum_sq = 0.0;
        for (var i = local; i < params.dim; i += WG) {
            sum_sq += x[base + i] * x[base + i];
        }
        let r = inverseSqrt(workgroup_sum(local, sum_sq) / f32(params.dim) + params.eps);
        // Each column belongs to one invocation: no other sees its sum.
        for (var i = local; i < params.dim; i += WG) {
            var sum = dy[base + i] * x[base + i] * r;
            if row != group.x {
                sum += partial[sums + i];
            }
            partial[sums + i] = sum;
        }
    }
}
