// y = x * (1 + erf(x / sqrt(2))) / 2, the exact GELU of the patch merger.
//
// Dispatch (x, y, 1) over `len` elements, `stride` = 256 * x.
// Oracle: globe_ops::gelu, default body.

#import erf

const WG: u32 = 256u;

struct Params {
    len: u32,
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;    // [len]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;    // [len]
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * params.stride + id.x;
    if i < params.len {
        y[i] = 0.5 * x[i] * (1.0 + erf(x[i] * 0.70710678));
    }
}
