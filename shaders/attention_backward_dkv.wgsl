// dv = p^T dy and dk = scale * (p (dy v^T - delta))^T q, with p = exp(q k^T * scale - lse) computed
// again: the key half of FlashAttention-2's backward pass (arXiv 2307.08691, algorithm 2).
//
// A workgroup owns 64 keys and walks through the queries that may see one of them, every head of
// the group, in order: no atomics, the same sums every time. Rows of queries as in attention.wgsl;
// `stats` comes from attention_backward_stats.wgsl.
// Dispatch (ceil(keys / 64), n_kv_heads, 1). quads at most 8 * PARTS.
// Oracle: globe_ops::attention_backward, default body.

#import attention_tile
#import attention_keys
#import attention_rows
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

@group(0) @binding(0) var<storage, read_write> q: array<vec4<f32>>;             // [tokens, n_heads, quads]
@group(0) @binding(1) var<storage, read_write> k: array<vec4<f32>>;             // [keys, n_kv_heads, quads]
@group(0) @binding(2) var<storage, read_write> v: array<vec4<f32>>;             // [keys, n_kv_heads, quads]
@group(0) @binding(3) var<storage, read_write> dy: array<vec4<f32>>;            // [tokens, n_heads, quads]
@group(0) @binding(4) var<storage, read_write> stats: array<vec4<u32>>;         // [tokens, n_heads] lse and delta as bits, first key, end
@group(0) @binding(5) var<storage, read_write> key_ranges: array<vec2<i32>>;    // [keys] first token and end
@group(0) @binding(6) var<storage, read_write> dk: array<vec4<f32>>;            // [keys, n_kv_heads, quads]
@group(0) @binding(7) var<storage, read_write> dv: array<vec4<f32>>;            // [keys, n_kv_heads, quads]
@group(0) @binding(8) var<uniform> params: Params;

var<workgroup> block_span: vec2<u32>;

// Products of the owned keys with walked queries, one column per walked query of tx: k q^T, or
// v dy^T for values.
fn products(of_values: bool, keys: vec4<u32>, first_row: u32, kv_head: u32, local: u32) -> mat4x4<f32> {
    var sums = mat4x4<f32>();
    for (var start = 0u; start < params.quads; start += DEPTH) {
        workgroupBarrier();
        for (var i = local; i < WALKED * DEPTH; i += WG) {
            let quad = min(start + i % DEPTH, params.quads - 1u);
            let from_at = head_row(first_row + i / DEPTH, kv_head) * params.quads + quad;
            let at = i / DEPTH * STAGED_STEP + i % DEPTH;
            if of_values {
                tile[at] = dy[from_at];
            } else {
                tile[at] = q[from_at];
            }
        }
        workgroupBarrier();
        for (var d = 0u; d < min(DEPTH, params.quads - start); d++) {
            let at = keys * params.quads + start + d;
            var owned = mat4x4<f32>();
            if of_values {
                owned = mat4x4(v[at.x], v[at.y], v[at.z], v[at.w]);
            } else {
                owned = mat4x4(k[at.x], k[at.y], k[at.z], k[at.w]);
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
    let own_keys = vec4(0u, 1u, 2u, 3u) + workgroup.x * OWNED + 4u * ty;
    let keys = min(own_keys, vec4(params.keys - 1u)) * params.n_kv_heads + kv_head;
    if local == 0u {
        block_span = keys_span(workgroup.x * OWNED);
    }
    let span = workgroupUniformLoad(&block_span) * params.group; // rows
    let n_heads = params.n_kv_heads * params.group;

    var dk_sums = array<mat4x4<f32>, PARTS>(); // [quad][key]
    var dv_sums = array<mat4x4<f32>, PARTS>();
    for (var start = span.x; start < span.y; start += WALKED) {
        var p = products(false, keys, start, kv_head, local);
        var ds = products(true, keys, start, kv_head, local);
        for (var j = 0u; j < 4u; j++) {
            let row = start + tx + SIDE * j;
            let of_row = stats[head_row(row, kv_head)];
            let shared_end = vec4(min(params.prefix, of_row.z));
            let in_range = (own_keys >= vec4(of_row.z)) & (own_keys < vec4(of_row.w));
            let visible = (in_range | (own_keys < shared_end)) & vec4(row < span.y);
            let weight = exp(p[j] * params.scale - bitcast<f32>(of_row.x));
            p[j] = select(vec4(0.0), weight, visible);
            ds[j] = p[j] * (ds[j] - bitcast<f32>(of_row.y));
        }
        let n = min(WALKED, span.y - start);

        workgroupBarrier();
        put_weights(tx, ty, p);
        workgroupBarrier();
        var at = head_row(start, kv_head);
        var head = start % params.group;
        for (var i = 0u; i < n; i++) {
            let weight = tile[i * WEIGHT_STEP + ty];
            for (var c = 0u; c < PARTS; c++) {
                let quad = min(tx + c * SIDE, params.quads - 1u);
                dv_sums[c] += outer(dy[at * params.quads + quad], weight);
            }
            head++;
            at++;
            if head == params.group { // the next token
                head = 0u;
                at += n_heads - params.group;
            }
        }
        workgroupBarrier();

        put_weights(tx, ty, ds);
        workgroupBarrier();
        at = head_row(start, kv_head);
        head = start % params.group;
        for (var i = 0u; i < n; i++) {
            let weight = tile[i * WEIGHT_STEP + ty];
            for (var c = 0u; c < PARTS; c++) {
                let quad = min(tx + c * SIDE, params.quads - 1u);
                dk_sums[c] += outer(q[at * params.quads + quad], weight);
            }
            head++;
            at++;
            if head == params.group {
                head = 0u;
                at += n_heads - params.group;
            }
        }
    }

    for (var i = 0u; i < 4u; i++) {
        if own_keys[i] >= params.keys {
            continue;
        }
        for (var c = 0u; c < PARTS; c++) {
            let quad = tx + c * SIDE;
            if quad < params.quads {
                dk[keys[i] * params.quads + quad] = dk_sums[c][i] * params.scale;
                dv[keys[i] * params.quads + quad] = dv_sums[c][i];
            }
        }
    }
}
