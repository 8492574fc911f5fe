// dgate = dy * up * s * (1 + gate * (1 - s)) and dup = dy * gate * s with s = sigmoid(gate), the
// gradients of y = silu(gate) * up, where gate and up alternate in the columns of x.
//
// Dispatch (x, y, 1) over all elements of dy, `stride` = 256 * x.
// Oracle: globe_ops::swiglu_backward, default body.

const WG: u32 = 256u;

struct Params {
    len: u32, // elements of dy
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<vec2<f32>>;     // [rows, n] pairs
@group(0) @binding(1) var<storage, read_write> dy: array<f32>;          // [rows, n]
@group(0) @binding(2) var<storage, read_write> dx: array<vec2<f32>>;    // as x
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * params.stride + id.x;
    if i >= params.len {
        return;
    }
    let gate = x[i].x;
    let up = x[i].y;
    let s = 1.0 / (1.0 + exp(-gate));
    dx[i] = dy[i] * vec2(up * s * (1.0 + gate * (1.0 - s)), gate * s);
}
