// y = x weight^T + bias for few rows: eight lanes walk one weight row together.
//
// Dispatch (ceil(outputs / 32) folded over x and z, rows, 1): output block = z * groups_x + x.
// Oracle: globe_ops::linear, default body. Many rows: linear.wgsl.

const LANES: u32 = 8u;
const OUTPUTS: u32 = 32u;

struct Params {
    outputs: u32,
    inputs: u32,
    groups_x: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;         // [rows, inputs]
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;    // [outputs, inputs]
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;      // [outputs]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;         // [rows, outputs]
@group(0) @binding(4) var<uniform> params: Params;

var<workgroup> partial: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let lane = local % LANES;
    let output = (group.z * params.groups_x + group.x) * OUTPUTS + local / LANES;
    let x_row = group.y * params.inputs;

    var sum = 0.0;
    if output < params.outputs {
        let weight_row = output * params.inputs;
        for (var i = lane; i < params.inputs; i += LANES) {
            sum += x[x_row + i] * weight[weight_row + i];
        }
    }
    partial[local] = sum;
    workgroupBarrier();
    if lane == 0u && output < params.outputs {
        var total = bias[output];
        for (var j = 0u; j < LANES; j++) {
            total += partial[local + j];
        }
        y[group.y * params.outputs + output] = total;
    }
}
