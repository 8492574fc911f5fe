// dq = scale * sum over keys of p (dy v^T - delta) k, with p = exp(q k^T * scale - lse) computed
// again: the query half of FlashAttention-2's backward pass (arXiv 2307.08691, algorithm 2).
//
// Tiles, rows and keys as in attention.wgsl; `stats` comes from attention_backward_stats.wgsl.
// Dispatch (ceil(tokens * group / 64), n_kv_heads, 1). quads at most 8 * PARTS.
// Oracle: globe_ops::attention_backward, default body.

#import attention_tile
#import attention_rows
#import attention_span
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

@group(0) @binding(0) var<storage, read_write> q: array<vec4<f32>>;        // [tokens, n_heads, quads]
@group(0) @binding(1) var<storage, read_write> k: array<vec4<f32>>;        // [keys, n_kv_heads, quads]
@group(0) @binding(2) var<storage, read_write> v: array<vec4<f32>>;        // [keys, n_kv_heads, quads]
@group(0) @binding(3) var<storage, read_write> dy: array<vec4<f32>>;       // [tokens, n_heads, quads]
@group(0) @binding(4) var<storage, read_write> stats: array<vec4<u32>>;    // [tokens, n_heads] lse and delta as bits, first key, end
@group(0) @binding(5) var<storage, read_write> dq: array<vec4<f32>>;       // [tokens, n_heads, quads]
@group(0) @binding(6) var<uniform> params: Params;

var<workgroup> block_span: vec3<u32>;

// The keys of a token's own range, cut to those that exist.
fn key_range(token: u32) -> vec2<u32> {
    return stats[token * params.n_kv_heads * params.group].zw;
}

// Products of the owned queries with walked keys, one column per walked key of tx: q k^T, or
// dy v^T for values.
fn products(of_values: bool, queries: vec4<u32>, first_key: u32, kv_head: u32, local: u32) -> mat4x4<f32> {
    var sums = mat4x4<f32>();
    for (var start = 0u; start < params.quads; start += DEPTH) {
        workgroupBarrier();
        for (var i = local; i < WALKED * DEPTH; i += WG) {
            let key = min(first_key + i / DEPTH, params.keys - 1u);
            let quad = min(start + i % DEPTH, params.quads - 1u);
            let from_at = (key * params.n_kv_heads + kv_head) * params.quads + quad;
            let at = i / DEPTH * STAGED_STEP + i % DEPTH;
            if of_values {
                tile[at] = v[from_at];
            } else {
                tile[at] = k[from_at];
            }
        }
        workgroupBarrier();
        for (var d = 0u; d < min(DEPTH, params.quads - start); d++) {
            let at = queries * params.quads + start + d;
            var owned = mat4x4<f32>();
            if of_values {
                owned = mat4x4(dy[at.x], dy[at.y], dy[at.z], dy[at.w]);
            } else {
                owned = mat4x4(q[at.x], q[at.y], q[at.z], q[at.w]);
            }
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
    var lse = vec4<f32>();
    var delta = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        queries[i] = head_row(row + i, kv_head);
        let of_row = stats[queries[i]];
        lse[i] = bitcast<f32>(of_row.x);
        delta[i] = bitcast<f32>(of_row.y);
        first[i] = of_row.z;
        end[i] = of_row.w;
    }
    let shared_end = min(first, vec4(params.prefix));

    var sums = array<mat4x4<f32>, PARTS>(); // [quad][row]
    for (var turn = 0u; turn < steps; turn++) {
        var start = turn * WALKED;
        var stop = span.x;
        if turn >= shared_steps {
            start = span.y + (turn - shared_steps) * WALKED;
            stop = span.z;
        }
        var w = products(false, queries, start, kv_head, local);
        let dp = products(true, queries, start, kv_head, local);
        for (var j = 0u; j < 4u; j++) {
            let key = start + tx + SIDE * j;
            let visible = sees(key, first, end, shared_end) & vec4(key < stop);
            let p = select(vec4(0.0), exp(w[j] * params.scale - lse), visible);
            w[j] = p * (dp[j] - delta);
        }
        workgroupBarrier();
        put_weights(tx, ty, w);
        workgroupBarrier();

        let n = min(WALKED, stop - start);
        for (var key = 0u; key < n; key++) {
            let at = ((start + key) * params.n_kv_heads + kv_head) * params.quads;
            let weight = tile[key * WEIGHT_STEP + ty];
            for (var c = 0u; c < PARTS; c++) {
                sums[c] += outer(k[at + min(tx + c * SIDE, params.quads - 1u)], weight);
            }
        }
    }

    for (var i = 0u; i < 4u; i++) {
        if row + i >= params.tokens * params.group {
            continue;
        }
        for (var c = 0u; c < PARTS; c++) {
            if tx + c * SIDE < params.quads {
                dq[queries[i] * params.quads + tx + c * SIDE] = sums[c][i] * params.scale;
            }
        }
    }
}
