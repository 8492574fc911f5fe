// 16 chains of `a = a * b + c` per invocation, in registers: how fast this adapter multiplies.
//
// Dispatch (groups, 1, 1). Only globe bench runs it.
// Oracle: with b = 1 and c = 0 the chains keep their starts x, x + 1 .. x + 15, and y = 4 * x + 30.

const WG: u32 = 256u;

struct Params {
    rounds: u32,
    b: f32,
    c: f32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;    // [groups * 256]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;    // [groups * 256]
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let b = vec4(params.b);
    let c = vec4(params.c);
    // Equal chains could be computed as one.
    var a0 = x[id.x] + vec4(0.0, 1.0, 2.0, 3.0);
    var a1 = a0 + 4.0;
    var a2 = a0 + 8.0;
    var a3 = a0 + 12.0;
    for (var i = 0u; i < params.rounds; i++) {
        a0 = fma(a0, b, c);
        a1 = fma(a1, b, c);
        a2 = fma(a2, b, c);
        a3 = fma(a3, b, c);
    }
    let sum = a0 + a1 + a2 + a3;
    y[id.x] = (sum.x + sum.y + sum.z + sum.w) * 0.25;
}
