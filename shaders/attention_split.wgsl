// Part of softmax(q k^T * scale) v for one new token per row: 64 keys per workgroup, so that a
// long cache keeps the whole device busy. attention_merge.wgsl puts the parts together.
//
// A row reads the keys that all rows share, 0 .. prefix, and then its own tail. `window` other
// than 0 keeps only the last keys. Up to 8 query heads that read the same key head are one team.
// Dispatch (chunks, n_kv_heads * teams, rows). head_dim is a multiple of 4, at most 128.
// Oracle: globe_ops::attention_step, default body.

#import kv

const KEYS: u32 = 64u; // keys and invocations per workgroup
const HEADS: u32 = 8u; // query heads per workgroup
const LOWEST: f32 = -1e30;

struct Params {
    n_kv_heads: u32,
    group: u32, // query heads per key head
    quads: u32, // head_dim / 4
    chunks: u32,
    window: u32, // 0: none
    teams: u32, // ceil(group / 8)
    scale: f32,
}

@group(0) @binding(0) var<storage, read_write> q: array<vec4<f32>>;        // [rows, n_heads, quads]
@group(0) @binding(1) var<storage, read_write> k: array<KvQuad>;           // [slots, n_kv_heads, quads]
@group(0) @binding(2) var<storage, read_write> v: array<KvQuad>;           // [slots, n_kv_heads, quads]
@group(0) @binding(3) var<storage, read_write> places: array<i32>;         // [rows, prefix + tail start + tail length + position]
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;     // [rows, n_heads, chunks, quads]
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;    // [rows, n_heads, chunks] highest score, sum of weights
@group(0) @binding(6) var<uniform> params: Params;

// A browser zeroes this memory for every workgroup, some drivers by one store per number and invocation: the
// less of it, the better. Two vec4 per key: weights of the heads 0 .. 4 and 4 .. 8; at the end two per invocation: sums.
var<workgroup> pool: array<vec4<f32>, 2u * KEYS>;
var<workgroup> partial: array<f32, KEYS>;
var<workgroup> place: vec3<u32>; // prefix, start and length of the tail

// Quads of four heads, one per column.
fn four_heads(at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4(q[at.x], q[at.y], q[at.z], q[at.w]);
}

// One quad of values for each of four heads, by its weight.
fn outer(quad: vec4<f32>, w: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(quad * w.x, quad * w.y, quad * w.z, quad * w.w);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.z;
    let kv_head = group.y / params.teams;
    let first_head = kv_head * params.group + (group.y % params.teams) * HEADS;
    let n_heads = min(HEADS, (kv_head + 1u) * params.group - first_head);
    let all_heads = params.n_kv_heads * params.group;
    let quads = params.quads;

    // Through workgroup memory, so that the compiler knows that the early return is uniform.
    if local == 0u {
        place = vec3(u32(places[4u * row]), u32(places[4u * row + 1u]), u32(places[4u * row + 2u]));
    }
    let mine = workgroupUniformLoad(&place);
    let prefix = mine.x;
    let tail = mine.y;
    let len = prefix + mine.z;
    let first_key = group.x * KEYS;
    if first_key >= len {
        return; // attention_merge does not read this part
    }

    // Scores: one key per invocation.
    let key = first_key + local;
    let oldest = select(0u, len - min(len, params.window), params.window > 0u);
    let visible = key < len && key >= oldest;
    var slot = min(key, len - 1u);
    if slot >= prefix {
        slot = tail + slot - prefix;
    }
    let key_at = (slot * params.n_kv_heads + kv_head) * quads;
    let q_at = (row * all_heads + first_head) * quads;
    let last = vec4(n_heads - 1u); // heads past the last repeat it
    let lower = q_at + min(vec4(0u, 1u, 2u, 3u), last) * quads;
    let upper = q_at + min(vec4(4u, 5u, 6u, 7u), last) * quads;
    let has_upper = n_heads > 4u;
    var scores_lower = vec4<f32>();
    var scores_upper = vec4<f32>();
    for (var d = 0u; d < quads; d++) {
        let k_quad = kv_values(k[key_at + d]);
        scores_lower += k_quad * four_heads(lower + d);
        if has_upper {
            scores_upper += k_quad * four_heads(upper + d);
        }
    }
    pool[2u * local] = select(vec4(LOWEST), scores_lower * params.scale, visible);
    pool[2u * local + 1u] = select(vec4(LOWEST), scores_upper * params.scale, visible);
    workgroupBarrier();

    // Weights: eight invocations per head, eight keys each.
    let my_head = local / 8u;
    let my_pool = local % 8u * 16u + my_head / 4u;
    let mine_of_four = my_head % 4u;
    var highest = LOWEST;
    for (var j = 0u; j < 8u; j++) {
        highest = max(highest, pool[my_pool + 2u * j][mine_of_four]);
    }
    partial[local] = highest;
    workgroupBarrier();
    for (var j = 0u; j < 8u; j++) {
        highest = max(highest, partial[my_head * 8u + j]);
    }
    workgroupBarrier();
    var total = 0.0;
    for (var j = 0u; j < 8u; j++) {
        let score = pool[my_pool + 2u * j][mine_of_four];
        let weight = select(0.0, exp(score - highest), score > LOWEST);
        pool[my_pool + 2u * j][mine_of_four] = weight;
        total += weight;
    }
    partial[local] = total;
    workgroupBarrier();
    if local % 8u == 0u && my_head < n_heads {
        total = 0.0;
        for (var j = 0u; j < 8u; j++) {
            total += partial[local + j];
        }
        stats[(row * all_heads + first_head + my_head) * params.chunks + group.x] = vec2(highest, total);
    }

    // Values: one quad of the head per invocation, the keys dealt out to what is left over.
    let quad = local % quads;
    let part = local / quads;
    let parts = KEYS / quads;
    var sum = array<mat4x4<f32>, 2>(); // [head / 4][head % 4]
    if part < parts {
        for (var j = part; j < min(KEYS, len - first_key); j += parts) {
            var at = first_key + j;
            if at >= prefix {
                at = tail + at - prefix;
            }
            let v_quad = kv_values(v[(at * params.n_kv_heads + kv_head) * quads + quad]);
            sum[0] += outer(v_quad, pool[2u * j]);
            if has_upper {
                sum[1] += outer(v_quad, pool[2u * j + 1u]);
            }
        }
    }
    // Two heads at a time.
    for (var h = 0u; h < HEADS; h += 2u) {
        if h >= n_heads {
            break;
        }
        workgroupBarrier();
        pool[local] = sum[h / 4u][h % 4u];
        pool[KEYS + local] = sum[h / 4u][h % 4u + 1u];
        workgroupBarrier();
        let head = h + local / quads;
        if local < 2u * quads && head < n_heads {
            var all = vec4(0.0);
            for (var j = 0u; j < parts; j++) {
                all += pool[(head - h) * KEYS + j * quads + quad];
            }
            sums[((row * all_heads + first_head + head) * params.chunks + group.x) * quads + quad] = all;
        }
    }
}
