// dest[slots[i]] += rows[sources[i]] for all i, in place: the gradient of an embedding lookup. `slots`
// is sorted, and the first entry of a slot adds all of its rows, in order: no atomics, and equal
// inputs give equal bits.
//
// Dispatch (x, y, 1) over n * dim elements, `stride` = 256 * x.
// Oracle: globe_ops::scatter_add_rows, default body.

const WG: u32 = 256u;

struct Params {
    n: u32,
    dim: u32,
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> rows: array<f32>;       // [n_rows, dim]
@group(0) @binding(1) var<storage, read_write> sources: array<i32>;    // [n]
@group(0) @binding(2) var<storage, read_write> slots: array<i32>;      // [n], ascending
@group(0) @binding(3) var<storage, read_write> dest: array<f32>;       // [dest_rows, dim]
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.y * params.stride + id.x;
    if at >= params.n * params.dim {
        return;
    }
    let first = at / params.dim;
    let col = at % params.dim;
    let slot = slots[first];
    if first > 0u && slots[first - 1u] == slot {
        return;
    }
    var sum = 0.0;
    for (var i = first; i < params.n && slots[i] == slot; i++) {
        sum += rows[u32(sources[i]) * params.dim + col];
    }
    dest[u32(slot) * params.dim + col] += sum;
}
