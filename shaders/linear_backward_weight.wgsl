// dweight += scale * dy^T x, the gradient of a weight over all rows: a 64 x 64 tile per workgroup,
// 4 x 4 values per invocation, added to what the buffer holds.
//
// Dispatch (ceil(cols / 64), ceil(outputs / 64), 1).
// Oracle: globe_ops::linear_backward_weight, default body.

const TILE: u32 = 64u;
const QUADS: u32 = 16u; // vec4 along a side of the tile
const DEPTH: u32 = 16u; // rows at a time

struct Params {
    rows: u32,
    outputs: u32,
    cols: u32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read_write> dy: array<f32>;         // [rows, outputs]
@group(0) @binding(1) var<storage, read_write> x: array<f32>;          // [rows, cols]
@group(0) @binding(2) var<storage, read_write> dweight: array<f32>;    // [outputs, cols], changed in place
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> dy_tile: array<vec4<f32>, DEPTH * QUADS>; // [row][output]
var<workgroup> x_tile: array<vec4<f32>, DEPTH * QUADS>; // [row][col]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let output_0 = group.y * TILE;
    let col_0 = group.x * TILE;
    // Loading: one column of both, every fourth row.
    let mine = local % TILE;
    let dy_col = min(output_0 + mine, params.outputs - 1u);
    let x_col = min(col_0 + mine, params.cols - 1u);
    // Computing: four outputs by four columns.
    let tx = local % QUADS;
    let ty = local / QUADS;

    var sums = array<vec4<f32>, 4>(); // [output][col]
    for (var first = 0u; first < params.rows; first += DEPTH) {
        for (var i = local / TILE; i < DEPTH; i += 4u) {
            let row = min(first + i, params.rows - 1u);
            let counts = f32(first + i < params.rows);
            dy_tile[i * QUADS + mine / 4u][mine % 4u] = counts * dy[row * params.outputs + dy_col];
            x_tile[i * QUADS + mine / 4u][mine % 4u] = x[row * params.cols + x_col];
        }
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d++) {
            let w = x_tile[d * QUADS + tx];
            let a = dy_tile[d * QUADS + ty];
            sums[0] += a.x * w;
            sums[1] += a.y * w;
            sums[2] += a.z * w;
            sums[3] += a.w * w;
        }
        workgroupBarrier();
    }

    for (var j = 0u; j < 4u; j++) {
        let output = output_0 + ty * 4u + j;
        for (var c = 0u; c < 4u; c++) {
            let col = col_0 + tx * 4u + c;
            if output < params.outputs && col < params.cols {
                dweight[output * params.cols + col] += params.scale * sums[j][c];
            }
        }
    }
}
