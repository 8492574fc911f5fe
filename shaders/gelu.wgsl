// y = x * (1 + erf(x / sqrt(2))) / 2, the exact GELU of the patch merger.
//
// WGSL has no erf: Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
// Dispatch (x, y, 1) over `len` elements, `stride` = 256 * x.
// Oracle: globe_ops::gelu, default body.

const WG: u32 = 256u;

struct Params {
    len: u32,
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;    // [len]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;    // [len]
@group(0) @binding(2) var<uniform> params: Params;

fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return sign(x) * (1.0 - tail * exp(-x * x));
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * params.stride + id.x;
    if i < params.len {
        y[i] = 0.5 * x[i] * (1.0 + erf(x[i] * 0.70710678));
    }
}
