// dest[slots[row]] = rows[row] in place: the cache write, and image features into the prompt.
//
// Dispatch (x, y, 1) over n_rows * dim elements, `stride` = 256 * x.
// A slot outside `dest` is skipped: the host refuses such slots before they get here.
// Oracle: globe_ops::scatter_rows, default body.

const WG: u32 = 256u;

struct Params {
    n_rows: u32,
    dim: u32,
    dest_rows: u32,
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> rows: array<f32>;     // [n_rows, dim]
@group(0) @binding(1) var<storage, read_write> slots: array<i32>;    // [n_rows], distinct
@group(0) @binding(2) var<storage, read_write> dest: array<f32>;     // [dest_rows, dim]
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * params.stride + id.x;
    if i >= params.n_rows * params.dim {
        return;
    }
    let slot = u32(slots[i / params.dim]);
    if slot < params.dest_rows {
        dest[slot * params.dim + i % params.dim] = rows[i];
    }
}
