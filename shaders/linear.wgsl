// y = x weight^T + bias, a 64 x 64 tile per workgroup, 4 x 4 outputs per invocation.
//
// Dispatch (ceil(outputs / 64), ceil(rows / 64), 1). No size need be a multiple of a tile.
// Oracle: globe_ops::linear, default body. Few rows: linear_row.wgsl.

const TILE: u32 = 64u;
const DEPTH: u32 = 16u;
const SIDE: u32 = 16u; // invocations along each side of the tile
const PER: u32 = 4u; // outputs along each side per invocation
const STEP: u32 = 65u; // TILE + 1 keeps the columns of a tile in different banks

struct Params {
    rows: u32,
    outputs: u32,
    inputs: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;         // [rows, inputs]
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;    // [outputs, inputs]
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;      // [outputs]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;         // [rows, outputs]
@group(0) @binding(4) var<uniform> params: Params;

var<workgroup> x_tile: array<f32, DEPTH * STEP>; // [depth, row]
var<workgroup> weight_tile: array<f32, DEPTH * STEP>; // [depth, output]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let output_0 = group.x * TILE;
    let row_0 = group.y * TILE;
    let tx = local % SIDE;
    let ty = local / SIDE;

    var sums = array<vec4<f32>, PER>(); // [row][output]
    for (var depth_0 = 0u; depth_0 < params.inputs; depth_0 += DEPTH) {
        // Each invocation loads one column of depth for four rows of both tiles.
        let input = depth_0 + tx;
        for (var j = 0u; j < PER; j++) {
            let at = ty + j * SIDE;
            var a = 0.0;
            var b = 0.0;
            if input < params.inputs && row_0 + at < params.rows {
                a = x[(row_0 + at) * params.inputs + input];
            }
            if input < params.inputs && output_0 + at < params.outputs {
                b = weight[(output_0 + at) * params.inputs + input];
            }
            x_tile[tx * STEP + at] = a;
            weight_tile[tx * STEP + at] = b;
        }
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d++) {
            let w = d * STEP + tx * PER;
            let b = vec4(weight_tile[w], weight_tile[w + 1u], weight_tile[w + 2u], weight_tile[w + 3u]);
            let a = d * STEP + ty * PER;
            sums[0] += x_tile[a] * b;
            sums[1] += x_tile[a + 1u] * b;
            sums[2] += x_tile[a + 2u] * b;
            sums[3] += x_tile[a + 3u] * b;
        }
        workgroupBarrier();
    }

    for (var j = 0u; j < PER; j++) {
        let row = row_0 + ty * PER + j;
        if row < params.rows {
            for (var c = 0u; c < PER; c++) {
                let output = output_0 + tx * PER + c;
                if output < params.outputs {
                    y[row * params.outputs + output] = sums[j][c] + bias[output];
                }
            }
        }
    }
}
