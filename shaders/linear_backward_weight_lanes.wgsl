// dweight += scale * dy^T x as in linear_backward_weight.wgsl, for adapters whose loads are dear: every lane of a
// subgroup of 8 owns R outputs and 32 columns, and four rows at a time are loaded once for all lanes.
//
// cols is a multiple of 4. Dispatch (ceil(cols / 32), ceil(outputs / (8 R)), 1). Needs subgroups of exactly 8.
// Oracle: globe_ops::linear_backward_weight, default body.

const R: u32 = 2u; // outputs per lane
const LANES: u32 = 8u;
const QUADS: u32 = 8u; // vec4 of 32 columns
const DEPTH: u32 = 4u; // rows at a time

struct Params {
    rows: u32,
    outputs: u32,
    cols: u32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read_write> dy: array<f32>;               // [rows, outputs]
@group(0) @binding(1) var<storage, read_write> x: array<vec4<f32>>;          // [rows, cols / 4]
@group(0) @binding(2) var<storage, read_write> dweight: array<vec4<f32>>;    // [outputs, cols / 4], changed in place
@group(0) @binding(3) var<uniform> params: Params;

var<private> g: array<vec4<f32>, R>; // [output], of four rows
var<private> sums: array<vec4<f32>, R * QUADS>; // [output][quad]

// Adds the products of four rows with quad k of theirs.
fn accumulate(k: u32, rows: mat4x4<f32>) {
    for (var r = 0u; r < R; r++) {
        sums[r * QUADS + k] += rows * g[r];
    }
}

@compute @workgroup_size(8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let output_0 = (group.y * LANES + lane) * R;
    let col_quads = params.cols / 4u;
    let quad_0 = group.x * QUADS;
    let mine = min(quad_0 + lane, col_quads - 1u);

    for (var first = 0u; first < params.rows; first += DEPTH) {
        var values = array<vec4<f32>, DEPTH>(); // [row]
        for (var i = 0u; i < DEPTH; i++) {
            let row = min(first + i, params.rows - 1u);
            let counts = f32(first + i < params.rows);
            values[i] = x[row * col_quads + mine];
            for (var r = 0u; r < R; r++) {
                g[r][i] = counts * dy[row * params.outputs + min(output_0 + r, params.outputs - 1u)];
            }
        }
        // The lane of a broadcast must be a constant.
        accumulate(0u, mat4x4(
            subgroupBroadcast(values[0], 0u), subgroupBroadcast(values[1], 0u),
            subgroupBroadcast(values[2], 0u), subgroupBroadcast(values[3], 0u),
        ));
        accumulate(1u, mat4x4(
            subgroupBroadcast(values[0], 1u), subgroupBroadcast(values[1], 1u),
            subgroupBroadcast(values[2], 1u), subgroupBroadcast(values[3], 1u),
        ));
        accumulate(2u, mat4x4(
            subgroupBroadcast(values[0], 2u), subgroupBroadcast(values[1], 2u),
            subgroupBroadcast(values[2], 2u), subgroupBroadcast(values[3], 2u),
        ));
        accumulate(3u, mat4x4(
            subgroupBroadcast(values[0], 3u), subgroupBroadcast(values[1], 3u),
            subgroupBroadcast(values[2], 3u), subgroupBroadcast(values[3], 3u),
        ));
        accumulate(4u, mat4x4(
            subgroupBroadcast(values[0], 4u), subgroupBroadcast(values[1], 4u),
            subgroupBroadcast(values[2], 4u), subgroupBroadcast(values[3], 4u),
        ));
        accumulate(5u, mat4x4(
            subgroupBroadcast(values[0], 5u), subgroupBroadcast(values[1], 5u),
            subgroupBroadcast(values[2], 5u), subgroupBroadcast(values[3], 5u),
        ));
        accumulate(6u, mat4x4(
            subgroupBroadcast(values[0], 6u), subgroupBroadcast(values[1], 6u),
            subgroupBroadcast(values[2], 6u), subgroupBroadcast(values[3], 6u),
        ));
        accumulate(7u, mat4x4(
            subgroupBroadcast(values[0], 7u), subgroupBroadcast(values[1], 7u),
            subgroupBroadcast(values[2], 7u), subgroupBroadcast(values[3], 7u),
        ));
    }

    for (var r = 0u; r < R; r++) {
        for (var k = 0u; k < QUADS; k++) {
            if output_0 + r >= params.outputs || quad_0 + k >= col_quads {
                continue;
            }
            dweight[(output_0 + r) * col_quads + quad_0 + k] += params.scale * sums[r * QUADS + k];
        }
    }
}
