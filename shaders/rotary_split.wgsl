// Splits rows of query, key and value heads, turns queries and keys as rotary.wgsl does, and
// writes keys and values into their buffers at the row's slot, in place.
//
// Dispatch (x, y, 1) over tokens * (n_heads + 2 * n_kv_heads) * half pairs, as many per invocation as a
// word of the buffers holds numbers; `stride` = 256 * x.
// A slot outside the buffers is skipped: the host refuses such slots before they get here.
// Oracle: globe_ops::rotary_split, default body.

#import kv

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
@group(0) @binding(5) var<storage, read_write> k: array<KvWord>;         // [slots, n_kv_heads, 2 * half]
@group(0) @binding(6) var<storage, read_write> v: array<KvWord>;         // [slots, n_kv_heads, 2 * half]
@group(0) @binding(7) var<uniform> params: Params;

// Number `at` of the row, and what is turned with it.
fn turned(token: u32, at: u32, i: u32, is_turned: bool) -> vec2<f32> {
    let a = qkv[at];
    let b = qkv[at + params.half];
    if !is_turned {
        return vec2(a, b);
    }
    let axis = u32(i >= params.section_0) + u32(i >= params.section_1);
    let angle = u32(positions[axis * params.tokens + token]) * 2u * params.half + i;
    let cos = table[angle];
    let sin = table[angle + params.half];
    return vec2(a * cos - b * sin, b * cos + a * sin);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let item = id.y * params.stride + id.x;
    let half = params.half;
    let per_head = half / PER_WORD;
    let heads = params.n_heads + 2u * params.n_kv_heads;
    let token = item / (heads * per_head);
    if token >= params.tokens {
        return;
    }
    let first = item % per_head * PER_WORD;
    let head = item / per_head % heads;
    let is_turned = head < params.n_heads + params.n_kv_heads;
    let at = (token * heads + head) * 2u * half + first;
    var low = vec2<f32>();
    var high = vec2<f32>();
    for (var j = 0u; j < PER_WORD; j++) {
        let pair = turned(token, at + j, first + j, is_turned);
        low[j] = pair.x;
        high[j] = pair.y;
    }

    let slot = u32(slots[token]);
    if head < params.n_heads {
        let to = (token * params.n_heads + head) * 2u * half + first;
        for (var j = 0u; j < PER_WORD; j++) {
            q[to + j] = low[j];
            q[to + half + j] = high[j];
        }
    } else if slot < params.slots {
        let kv_head = (head - params.n_heads) % params.n_kv_heads;
        let to = ((slot * params.n_kv_heads + kv_head) * 2u * half + first) / PER_WORD;
        if is_turned {
            k[to] = kv_word(low);
            k[to + per_head] = kv_word(high);
        } else {
            v[to] = kv_word(low);
            v[to + per_head] = kv_word(high);
        }
    }
}
