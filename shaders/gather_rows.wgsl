// y[row] = table[ids[row]], the embedding lookup and the window reordering.
//
// Dispatch (x, y, 1) over rows * dim elements, `stride` = 256 * x.
// An id outside the table reads as zeros: the host refuses such ids before they get here.
// Oracle: globe_ops::gather_rows, default body.

const WG: u32 = 256u;

struct Params {
    rows: u32,
    dim: u32,
    table_rows: u32,
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> table: array<f32>;    // [table_rows, dim]
@group(0) @binding(1) var<storage, read_write> ids: array<i32>;      // [rows]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;        // [rows, dim]
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * params.stride + id.x;
    if i >= params.rows * params.dim {
        return;
    }
    let source = u32(ids[i / params.dim]); // a negative id becomes a huge one
    if source < params.table_rows {
        y[i] = table[source * params.dim + i % params.dim];
    } else {
        y[i] = 0.0;
    }
}
