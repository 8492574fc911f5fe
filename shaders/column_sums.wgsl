// sum[col] += all rows of x in that column, in place: the gradient of a bias, and the last stage of
// other sums over rows. 64 columns per workgroup, four invocations share one.
//
// Dispatch (ceil(cols / 64), 1, 1).
// Oracle: globe_ops::column_sums, default body.

const WG: u32 = 256u;
const COLS: u32 = 64u;

struct Params {
    rows: u32,
    cols: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;      // [rows, cols]
@group(0) @binding(1) var<storage, read_write> sum: array<f32>;    // [cols], changed in place
@group(0) @binding(2) var<uniform> params: Params;

var<workgroup> parts: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let col = group.x * COLS + local % COLS;
    var part = 0.0;
    if col < params.cols {
        for (var row = local / COLS; row < params.rows; row += WG / COLS) {
            part += x[row * params.cols + col];
        }
    }
    parts[local] = part;
    workgroupBarrier();
    if local < COLS && col < params.cols {
        let all = parts[local] + parts[local + COLS] + parts[local + 2u * COLS] + parts[local + 3u * COLS];
        sum[col] += all;
    }
}
