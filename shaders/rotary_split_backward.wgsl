// Gradients of query, key and value heads, those of queries and keys turned back, side by side as
// the projection has them: the inverse of rotary_split.wgsl with every row in its own slot.
//
// Dispatch (x, y, 1) over tokens * (n_heads + 2 * n_kv_heads) * half pairs, `stride` = 256 * x.
// Oracle: globe_ops::rotary_split_backward, default body.

const WG: u32 = 256u;

struct Params {
    tokens: u32,
    n_heads: u32,
    n_kv_heads: u32,
    half: u32,
    section_0: u32,
    section_1: u32,
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> dq: array<f32>;           // [tokens, n_heads, 2 * half]
@group(0) @binding(1) var<storage, read_write> dk: array<f32>;           // [tokens, n_kv_heads, 2 * half]
@group(0) @binding(2) var<storage, read_write> dv: array<f32>;           // as dk
@group(0) @binding(3) var<storage, read_write> table: array<f32>;        // [positions, cos half + sin half]
@group(0) @binding(4) var<storage, read_write> positions: array<i32>;    // [axes, tokens]
@group(0) @binding(5) var<storage, read_write> dqkv: array<f32>;         // [tokens, heads of q, k, v, 2 * half]
@group(0) @binding(6) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let pair = id.y * params.stride + id.x;
    let half = params.half;
    let heads = params.n_heads + 2u * params.n_kv_heads;
    let token = pair / (heads * half);
    if token >= params.tokens {
        return;
    }
    let i = pair % half;
    let head = pair / half % heads;
    let axis = u32(i >= params.section_0) + u32(i >= params.section_1);
    let angle = u32(positions[axis * params.tokens + token]) * 2u * half + i;
    let cos = table[angle];
    let sin = table[angle + half];
    let to = (token * heads + head) * 2u * half + i;

    if head >= params.n_heads + params.n_kv_heads {
        let kv_head = head - params.n_heads - params.n_kv_heads;
        let source = (token * params.n_kv_heads + kv_head) * 2u * half + i;
        dqkv[to] = dv[source];
        dqkv[to + half] = dv[source + half];
        return;
    }
    var a = 0.0;
    var b = 0.0;
    if head < params.n_heads {
        let source = (token * params.n_heads + head) * 2u * half + i;
        a = dq[source];
        b = dq[source + half];
    } else {
        let source = (token * params.n_kv_heads + head - params.n_heads) * 2u * half + i;
        a = dk[source];
        b = dk[source + half];
    }
    dqkv[to] = a * cos + b * sin;
    dqkv[to + half] = b * cos - a * sin;
}
