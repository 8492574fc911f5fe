// dx = dy * (P(x) + x * p(x)) with the normal distribution function P and its density p: the gradient
// of the exact GELU.
//
// Dispatch (x, y, 1) over `len` elements, `stride` = 256 * x.
// Oracle: globe_ops::gelu_backward, default body.

#import erf

const WG: u32 = 256u;

struct Params {
    len: u32,
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;     // [len]
@group(0) @binding(1) var<storage, read_write> dy: array<f32>;    // [len]
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;    // [len]
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * params.stride + id.x;
    if i < params.len {
        let share = 0.5 * (1.0 + erf(x[i] * 0.70710678));
        let density = 0.39894228 * exp(-0.5 * x[i] * x[i]);
        dx[i] = dy[i] * (share + x[i] * density);
    }
}
