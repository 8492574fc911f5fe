// y = index of the largest value of each row, the lowest index on a tie.
//
// Dispatch (rows, 1, 1), one row per workgroup. NaN never wins.
// Oracle: globe_ops::argmax, default body.

const WG: u32 = 256u;
const LOWEST: f32 = -3.4028234e38;

struct Params {
    dim: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;    // [rows, dim]
@group(0) @binding(1) var<storage, read_write> y: array<i32>;    // [rows]
@group(0) @binding(2) var<uniform> params: Params;

var<workgroup> best_value: array<f32, WG>;
var<workgroup> best_index: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let base = group.x * params.dim;
    var value = LOWEST;
    var index = 0xffffffffu; // loses every tie
    for (var i = local; i < params.dim; i += WG) {
        if x[base + i] > value {
            value = x[base + i];
            index = i;
        }
    }
    best_value[local] = value;
    best_index[local] = index;
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        workgroupBarrier();
        if local < stride {
            let other = best_value[local + stride];
            let other_index = best_index[local + stride];
            let mine = best_value[local];
            if other > mine || (other == mine && other_index < best_index[local]) {
                best_value[local] = other;
                best_index[local] = other_index;
            }
        }
    }
    workgroupBarrier();
    if local == 0u {
        // A row without a single number above LOWEST has no winner: report index 0.
        y[group.x] = i32(select(best_index[0], 0u, best_index[0] >= params.dim));
    }
}
