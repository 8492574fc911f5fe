// y = x, four words per invocation: how fast this adapter moves bytes.
//
// Dispatch (x, y, 1) over quads, `stride` = 256 * x. Only globe bench runs it.
// Oracle: y equals x.

const WG: u32 = 256u;

struct Params {
    quads: u32,
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<vec4<u32>>;    // [quads]
@group(0) @binding(1) var<storage, read_write> y: array<vec4<u32>>;    // [quads]
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * params.stride + id.x;
    if i < params.quads {
        y[i] = x[i];
    }
}
