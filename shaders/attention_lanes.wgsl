// y = softmax(q k^T * scale) v and lse as in attention.wgsl, for adapters whose loads are dear: every lane
// owns R queries, and 8 keys at a time are loaded once for all lanes of the subgroup.
//
// Rows, ranges and the running maximum as in attention.wgsl. A workgroup is one subgroup of exactly 8.
// Dispatch (ceil(tokens * group / (8 R)), n_kv_heads, 1). params.quads at most QUADS.
// Oracle: globe_ops::attention, default body.

#import quads
#import attention_lanes
#import attention_rows
#import attention_span
#import kv

const R: u32 = 4u; // queries per lane
const OWNED: u32 = LANES * R;

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

var<workgroup> block_span: vec3<u32>;

var<private> q_rows: array<Row, R>;
var<private> sums: array<Row, R>;
var<private> scores: array<Scores, R>;

// The keys of a token's own range, cut to those that exist.
fn key_range(token: u32) -> vec2<u32> {
    let range = vec2<u32>(max(ranges[token], vec2(0)));
    return vec2(range.x, min(range.y, params.keys));
}

@compute @workgroup_size(8)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let kv_head = workgroup.y;
    let row = workgroup.x * OWNED + lane * R;
    if lane == 0u {
        block_span = rows_span(workgroup.x * OWNED);
    }
    let span = workgroupUniformLoad(&block_span);
    let shared_steps = (span.x + LANES - 1u) / LANES;
    let steps = shared_steps + (span.z - span.y + LANES - 1u) / LANES;

    var at_row = array<u32, R>();
    var range = array<vec2<u32>, R>();
    for (var r = 0u; r < R; r++) {
        at_row[r] = head_row(row + r, kv_head);
        range[r] = key_range(at_row[r] / (params.n_kv_heads * params.group));
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                q_rows[r][d] = q[at_row[r] * params.quads + d] * params.scale;
            }
        }
    }

    var highest = array<f32, R>();
    for (var r = 0u; r < R; r++) { highest[r] = LOWEST; }
    var total = array<f32, R>();
    var shrink = array<f32, R>();
    for (var turn = 0u; turn < steps; turn++) {
        var start = turn * LANES;
        var stop = span.x;
        if turn >= shared_steps {
            start = span.y + (turn - shared_steps) * LANES;
            stop = span.z;
        }
        let mine = (min(start + lane, params.keys - 1u) * params.n_kv_heads + kv_head) * params.quads;

        scores = array<Scores, R>();
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                let walked = spread(kv_values(k[mine + d]));
                for (var r = 0u; r < R; r++) {
                    scores[r] = with_quad(scores[r], q_rows[r][d], walked);
                }
            }
        }
        for (var r = 0u; r < R; r++) {
            let shared_end = min(range[r].x, params.prefix);
            for (var half = 0u; half < 2u; half++) {
                let key = vec4(0u, 1u, 2u, 3u) + start + 4u * half;
                let in_range = (key >= vec4(range[r].x)) & (key < vec4(range[r].y));
                let visible = (in_range | (key < vec4(shared_end))) & (key < vec4(stop));
                scores[r][half] = select(vec4(LOWEST), scores[r][half], visible);
            }
            let four = max(scores[r][0], scores[r][1]);
            let before = highest[r];
            highest[r] = max(before, max(max(four.x, four.y), max(four.z, four.w)));
            for (var half = 0u; half < 2u; half++) {
                let w = scores[r][half];
                scores[r][half] = select(vec4(0.0), exp(w - highest[r]), w > vec4(LOWEST));
            }
            shrink[r] = exp(before - highest[r]);
            total[r] = total[r] * shrink[r] + dot(scores[r][0] + scores[r][1], vec4(1.0));
        }
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                let walked = spread(kv_values(v[mine + d]));
                for (var r = 0u; r < R; r++) {
                    sums[r][d] = sums[r][d] * shrink[r] + weighted(scores[r], walked);
                }
            }
        }
    }

    for (var r = 0u; r < R; r++) {
        if row + r >= params.tokens * params.group {
            continue;
        }
        let is_seeing = total[r] > 0.0; // a query that sees no key gives zeros
        let norm = select(0.0, 1.0 / total[r], is_seeing);
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                y[at_row[r] * params.quads + d] = sums[r][d] * norm;
            }
        }
        lse[at_row[r]] = select(0.0, highest[r] + log(total[r]), is_seeing);
    }
}
