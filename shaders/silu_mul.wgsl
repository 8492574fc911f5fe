// y = silu(gate) * up, the gate of SwiGLU.
//
// Dispatch (x, y, 1) over `len` elements, `stride` = 256 * x.
// Oracle: globe_ops::silu_mul, default body.

const WG: u32 = 256u;

struct Params {
    len: u32,
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> gate: array<f32>;    // [len]
@group(0) @binding(1) var<storage, read_write> up: array<f32>;      // [len]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;       // [len]
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * params.stride + id.x;
    if i < params.len {
        y[i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
    }
}
