// y = softmax(q k^T * scale) v, each query over its own keys, without storing scores: the running
// maximum and sum of "Online normalizer calculation for softmax" (arXiv 1805.02867), in tiles.
//
// A query with the range [first, end) sees those keys and the ones before min(prefix, first). A
// causal query has [0, its position + 1), a window query its window, an answer behind a shared
// prompt its own tokens; keys that no query of the tile sees are not walked through.
// `lse` is the logarithm of the sum of exp(score), which the backward pass starts from.
// The query heads that share a key head are rows of one tile: row = token * group + head in group.
// Dispatch (ceil(tokens * group / 64), n_kv_heads, 1). quads at most 8 * PARTS.
// Oracle: globe_ops::attention, default body.

#import attention_tile
#import attention_rows
#import attention_span
#import kv
#import parts

struct Params {
    tokens: u32,
    n_kv_heads: u32,
    group: u32, // query heads per key head
    quads: u32, // head_dim / 4
    keys: u32,
    prefix: u32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read_write> q: array<vec4<f32>>;         // [tokens, n_heads, quads]
@group(0) @binding(1) var<storage, read_write> k: array<KvQuad>;            // [keys, n_kv_heads, quads]
@group(0) @binding(2) var<storage, read_write> v: array<KvQuad>;            // [keys, n_kv_heads, quads]
@group(0) @binding(3) var<storage, read_write> ranges: array<vec2<i32>>;    // [tokens] first key and end
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;         // [tokens, n_heads, quads]
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;             // [tokens, n_heads]
@group(0) @binding(6) var<uniform> params: Params;

var<workgroup> partial: array<vec4<f32>, WG>; // maxima or sums of four rows
var<workgroup> block_span: vec3<u32>;

// The keys of a token's own range, cut to those that exist.
fn key_range(token: u32) -> vec2<u32> {
    let range = vec2<u32>(max(ranges[token], vec2(0)));
    return vec2(range.x, min(range.y, params.keys));
}

// q k^T of the owned queries, one column per walked key of tx.
fn scores(queries: vec4<u32>, first_key: u32, kv_head: u32, local: u32) -> mat4x4<f32> {
    var sums = mat4x4<f32>();
    for (var start = 0u; start < params.quads; start += DEPTH) {
        workgroupBarrier();
        for (var i = local; i < WALKED * DEPTH; i += WG) {
            let key = min(first_key + i / DEPTH, params.keys - 1u);
            let quad = min(start + i % DEPTH, params.quads - 1u);
            tile[i / DEPTH * STAGED_STEP + i % DEPTH] =
                kv_values(k[(key * params.n_kv_heads + kv_head) * params.quads + quad]);
        }
        workgroupBarrier();
        for (var d = 0u; d < min(DEPTH, params.quads - start); d++) {
            let at = queries * params.quads + start + d;
            let owned = mat4x4(q[at.x], q[at.y], q[at.z], q[at.w]);
            sums += transpose(owned) * staged_quads(local % SIDE, d);
        }
    }
    return sums;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let kv_head = workgroup.y;
    let tx = local % SIDE;
    let ty = local / SIDE;
    let row = workgroup.x * OWNED + 4u * ty;
    if local == 0u {
        block_span = rows_span(workgroup.x * OWNED);
    }
    let span = workgroupUniformLoad(&block_span);
    let shared_steps = (span.x + WALKED - 1u) / WALKED;
    let steps = shared_steps + (span.z - span.y + WALKED - 1u) / WALKED;

    var queries = vec4<u32>();
    var first = vec4<u32>();
    var end = vec4<u32>();
    for (var i = 0u; i < 4u; i++) {
        queries[i] = head_row(row + i, kv_head);
        let range = key_range(queries[i] / (params.n_kv_heads * params.group));
        first[i] = range.x;
        end[i] = range.y;
    }
    let shared_end = min(first, vec4(params.prefix));

    var highest = vec4(LOWEST);
    var total = vec4<f32>();
    var sums = array<mat4x4<f32>, PARTS>(); // [quad][row]
    for (var turn = 0u; turn < steps; turn++) {
        var start = turn * WALKED;
        var stop = span.x;
        if turn >= shared_steps {
            start = span.y + (turn - shared_steps) * WALKED;
            stop = span.z;
        }
        var w = scores(queries, start, kv_head, local) * params.scale;
        for (var j = 0u; j < 4u; j++) {
            let key = start + tx + SIDE * j;
            let visible = sees(key, first, end, shared_end) & vec4(key < stop);
            w[j] = select(vec4(LOWEST), w[j], visible);
        }
        partial[local] = max(max(w[0], w[1]), max(w[2], w[3]));
        workgroupBarrier();

        let before = highest;
        for (var j = 0u; j < SIDE; j++) {
            highest = max(highest, partial[ty * SIDE + j]);
        }
        for (var j = 0u; j < 4u; j++) {
            w[j] = select(vec4(0.0), exp(w[j] - highest), w[j] > vec4(LOWEST));
        }
        put_weights(tx, ty, w);
        workgroupBarrier();

        let shrink = exp(before - highest);
        total = total * shrink + (w[0] + w[1]) + (w[2] + w[3]);
        for (var c = 0u; c < PARTS; c++) {
            for (var i = 0u; i < 4u; i++) {
                sums[c][i] *= shrink[i];
            }
        }
        let n = min(WALKED, stop - start);
        for (var key = 0u; key < n; key++) {
            let at = ((start + key) * params.n_kv_heads + kv_head) * params.quads;
            let weight = tile[key * WEIGHT_STEP + ty];
            for (var c = 0u; c < PARTS; c++) {
                let quad = kv_values(v[at + min(tx + c * SIDE, params.quads - 1u)]);
                sums[c] += outer(quad, weight);
            }
        }
    }

    partial[local] = total;
    workgroupBarrier();
    total = vec4(0.0);
    for (var j = 0u; j < SIDE; j++) {
        total += partial[ty * SIDE + j];
    }
    for (var i = 0u; i < 4u; i++) {
        if row + i >= params.tokens * params.group {
            continue;
        }
        let is_seeing = total[i] > 0.0; // a query that sees no key gives zeros
        let norm = select(0.0, 1.0 / total[i], is_seeing);
        for (var c = 0u; c < PARTS; c++) {
            if tx + c * SIDE < params.quads {
                y[queries[i] * params.quads + tx + c * SIDE] = sums[c][i] * norm;
            }
        }
        if tx == 0u {
            lse[queries[i]] = select(0.0, highest[i] + log(total[i]), is_seeing);
        }
    }
}
