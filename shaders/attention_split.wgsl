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
const MAX_QUADS: u32 = 32u; // head_dim / 4
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

var<workgroup> place: vec3<u32>; // prefix, start and length of the tail
var<workgroup> q_tile: array<vec4<f32>, HEADS * MAX_QUADS>;
var<workgroup> weights: array<f32, HEADS * KEYS>;
var<workgroup> partial: array<f32, KEYS>;
var<workgroup> halves: array<vec4<f32>, HEADS * KEYS>;

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

    for (var i = local; i < n_heads * quads; i += KEYS) {
        q_tile[i] = q[(row * all_heads + first_head) * quads + i];
    }
    workgroupBarrier();

    // Scores: one key per invocation.
    let key = first_key + local;
    let oldest = select(0u, len - min(len, params.window), params.window > 0u);
    let visible = key < len && key >= oldest;
    var slot = min(key, len - 1u);
    if slot >= prefix {
        slot = tail + slot - prefix;
    }
    let key_at = (slot * params.n_kv_heads + kv_head) * quads;
    var scores: array<f32, HEADS>;
    for (var d = 0u; d < quads; d++) {
        let k_quad = kv_values(k[key_at + d]);
        for (var h = 0u; h < HEADS; h++) {
            scores[h] += dot(q_tile[min(h, n_heads - 1u) * quads + d], k_quad);
        }
    }
    for (var h = 0u; h < HEADS; h++) {
        weights[h * KEYS + local] = select(LOWEST, scores[h] * params.scale, visible);
    }
    workgroupBarrier();

    // Weights: eight invocations per head, eight keys each.
    let my_head = local / 8u;
    let my_keys = local * 8u; // my_head * KEYS + local % 8 * 8
    var highest = LOWEST;
    for (var j = 0u; j < 8u; j++) {
        highest = max(highest, weights[my_keys + j]);
    }
    partial[local] = highest;
    workgroupBarrier();
    for (var j = 0u; j < 8u; j++) {
        highest = max(highest, partial[my_head * 8u + j]);
    }
    workgroupBarrier();
    var total = 0.0;
    for (var j = 0u; j < 8u; j++) {
        let score = weights[my_keys + j];
        let weight = select(0.0, exp(score - highest), score > LOWEST);
        weights[my_keys + j] = weight;
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
    var sum: array<vec4<f32>, HEADS>;
    if part < parts {
        for (var j = part; j < min(KEYS, len - first_key); j += parts) {
            var at = first_key + j;
            if at >= prefix {
                at = tail + at - prefix;
            }
            let v_quad = kv_values(v[(at * params.n_kv_heads + kv_head) * quads + quad]);
            for (var h = 0u; h < HEADS; h++) {
                sum[h] += weights[h * KEYS + j] * v_quad;
            }
        }
        for (var h = 0u; h < HEADS; h++) {
            halves[h * KEYS + local] = sum[h];
        }
    }
    workgroupBarrier();
    for (var i = local; i < n_heads * quads; i += KEYS) {
        let h = i / quads;
        var all = vec4(0.0);
        for (var j = 0u; j < parts; j++) {
            all += halves[h * KEYS + j * quads + i % quads];
        }
        sums[((row * all_heads + first_head + h) * params.chunks + group.x) * quads + i % quads] = all;
    }
}
