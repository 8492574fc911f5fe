// dq as in attention_backward_dq.wgsl, for adapters whose loads are dear: every lane owns R queries, and 8
// keys at a time are loaded once for all lanes of the subgroup.
//
// A workgroup is one subgroup of exactly 8; `stats` comes from attention_backward_stats.wgsl.
// Dispatch (ceil(tokens * group / (8 R)), n_kv_heads, 1). params.quads at most QUADS.
// Oracle: globe_ops::attention_backward, default body.

#import quads
#import attention_lanes
#import attention_rows
#import attention_span

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

@group(0) @binding(0) var<storage, read_write> q: array<vec4<f32>>;        // [tokens, n_heads, quads]
@group(0) @binding(1) var<storage, read_write> k: array<vec4<f32>>;        // [keys, n_kv_heads, quads]
@group(0) @binding(2) var<storage, read_write> v: array<vec4<f32>>;        // [keys, n_kv_heads, quads]
@group(0) @binding(3) var<storage, read_write> dy: array<vec4<f32>>;       // [tokens, n_heads, quads]
@group(0) @binding(4) var<storage, read_write> stats: array<vec4<u32>>;    // [tokens, n_heads] lse and delta as bits, first key, end
@group(0) @binding(5) var<storage, read_write> dq: array<vec4<f32>>;       // [tokens, n_heads, quads]
@group(0) @binding(6) var<uniform> params: Params;

var<workgroup> block_span: vec3<u32>;

var<private> q_rows: array<Row, R>;
var<private> dy_rows: array<Row, R>;
var<private> sums: array<Row, R>;
var<private> keys_mine: Row;
var<private> p: array<Scores, R>;
var<private> dp: array<Scores, R>;

// The keys of a token's own range, cut to those that exist.
fn key_range(token: u32) -> vec2<u32> {
    return stats[token * params.n_kv_heads * params.group].zw;
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
    var of_row = array<vec4<u32>, R>();
    for (var r = 0u; r < R; r++) {
        at_row[r] = head_row(row + r, kv_head);
        of_row[r] = stats[at_row[r]];
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                q_rows[r][d] = q[at_row[r] * params.quads + d] * params.scale;
                dy_rows[r][d] = dy[at_row[r] * params.quads + d];
            }
        }
    }

    for (var turn = 0u; turn < steps; turn++) {
        var start = turn * LANES;
        var stop = span.x;
        if turn >= shared_steps {
            start = span.y + (turn - shared_steps) * LANES;
            stop = span.z;
        }
        let mine = (min(start + lane, params.keys - 1u) * params.n_kv_heads + kv_head) * params.quads;

        p = array<Scores, R>();
        dp = array<Scores, R>();
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                keys_mine[d] = k[mine + d];
                let keys = spread(keys_mine[d]);
                for (var r = 0u; r < R; r++) {
                    p[r] = with_quad(p[r], q_rows[r][d], keys);
                }
                let values = spread(v[mine + d]);
                for (var r = 0u; r < R; r++) {
                    dp[r] = with_quad(dp[r], dy_rows[r][d], values);
                }
            }
        }
        for (var r = 0u; r < R; r++) {
            let shared_end = min(of_row[r].z, params.prefix);
            for (var half = 0u; half < 2u; half++) {
                let key = vec4(0u, 1u, 2u, 3u) + start + 4u * half;
                let in_range = (key >= vec4(of_row[r].z)) & (key < vec4(of_row[r].w));
                let visible = (in_range | (key < vec4(shared_end))) & (key < vec4(stop));
                let weight = exp(p[r][half] - bitcast<f32>(of_row[r].x));
                let ds = weight * (dp[r][half] - bitcast<f32>(of_row[r].y));
                dp[r][half] = select(vec4(0.0), ds, visible);
            }
        }
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                let keys = spread(keys_mine[d]);
                for (var r = 0u; r < R; r++) {
                    sums[r][d] += weighted(dp[r], keys);
                }
            }
        }
    }

    for (var r = 0u; r < R; r++) {
        if row + r >= params.tokens * params.group {
            continue;
        }
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                dq[at_row[r] * params.quads + d] = sums[r][d] * params.scale;
            }
        }
    }
}
