// y = silu(gate) * up, where gate and up alternate in the columns of x.
//
// Dispatch (x, y, 1) over all elements of y, `stride` = 256 * x.
// Oracle: globe_ops::swiglu, default body.

const WG: u32 = 256u;

struct Params {
    len: u32, // elements of y
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<vec2<f32>>;    // [rows, n] pairs
@group(0) @binding(1) var<storage, read_write> y: array<f32>;          // [rows, n]
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * params.stride + id.x;
    if i >= params.len {
        return;
    }
    let pair = x[i];
    y[i] = pair.x / (1.0 + exp(-pair.x)) * pair.y;
}
