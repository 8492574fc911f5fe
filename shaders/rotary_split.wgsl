// Splits rows of query, key and value heads, turns queries and keys as rotary.wgsl does, and
// writes keys and values into their buffers at the row's slot, in place.
//
// Dispatch (x, y, 1) over tokens * (n_heads + 2 * n_kv_heads) * half pairs, `stride` = 256 * x.
// A slot outside the buffers is skipped: the host refuses such slots before they get here.
// Oracle: globe_ops::rotary_split, default body.

const WG: u32 = 256u;

struct Params {
    tokens: u32,
    n_heads: u32,
    n_kv_heads: u32,
    half: u32,
    section_0: u32,
    section_1: u32,
    slots: u32, // rows of the buffers
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> qkv: array<f32>;          // [tokens, heads of q, k, v, 2 * half]
@group(0) @binding(1) var<storage, read_write> table: array<f32>;        // [positions, cos half + sin half]
@group(0) @binding(2) var<storage, read_write> positions: array<i32>;    // [axes, tokens]
@group(0) @binding(3) var<storage, read_write> slots: array<i32>;        // [tokens], distinct
@group(0) @binding(4) var<storage, read_write> q: array<f32>;            // [tokens, n_heads, 2 * half]
@group(0) @binding(5) var<storage, read_write> k: array<f32>;            // [slots, n_kv_heads, 2 * half]
@group(0) @binding(6) var<storage, read_write> v: array<f32>;            // [slots, n_kv_heads, 2 * half]
@group(0) @binding(7) var<uniform> params: Params;

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
    let slot = u32(slots[token]);

    let axis = u32(i >= params.section_0) + u32(i >= params.section_1);
    let angle = u32(positions[axis * params.tokens + token]) * 2u * half + i;
    let cos = table[angle];
    let sin = table[angle + half];
    let at = (token * heads + head) * 2u * half + i;
    let a = qkv[at];
    let b = qkv[at + half];

    if head < params.n_heads {
        let to = (token * params.n_heads + head) * 2u * half + i;
        q[to] = a * cos - b * sin;
        q[to + half] = b * cos + a * sin;
    } else if slot < params.slots {
        let kv_head = (head - params.n_heads) % params.n_kv_heads;
        let to = (slot * params.n_kv_heads + kv_head) * 2u * half + i;
        if head < params.n_heads + params.n_kv_heads {
            k[to] = a * cos - b * sin;
            k[to + half] = b * cos + a * sin;
        } else {
            v[to] = a;
            v[to + half] = b;
        }
    }
}
