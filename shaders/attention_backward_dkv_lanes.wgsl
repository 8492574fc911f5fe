// dk and dv as in attention_backward_dkv.wgsl, for adapters whose loads are dear: every lane owns R keys, and
// 8 rows of queries at a time are loaded once for all lanes of the subgroup, in order: the same sums every time.
//
// A workgroup is one subgroup of exactly 8; `stats` comes from attention_backward_stats.wgsl.
// Dispatch (ceil(keys / (8 R)), n_kv_heads, 1). params.quads at most QUADS.
// Oracle: globe_ops::attention_backward, default body.

#import quads
#import attention_lanes
#import attention_keys
#import attention_rows

const R: u32 = 4u; // keys per lane
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

var<private> k_rows: array<Row, R>;
var<private> v_rows: array<Row, R>;
var<private> dk_sums: array<Row, R>;
var<private> dv_sums: array<Row, R>;
var<private> q_mine: Row;
var<private> dy_mine: Row;
var<private> p: array<Scores, R>;
var<private> dp: array<Scores, R>;

fn spread_words(mine: vec4<u32>) -> array<vec4<u32>, LANES> {
    return array(
        subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u),
        subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u),
        subgroupBroadcast(mine, 4u), subgroupBroadcast(mine, 5u),
        subgroupBroadcast(mine, 6u), subgroupBroadcast(mine, 7u),
    );
}

// Weights and gradients of scores of the owned keys for the walked rows, in p and dp.
fn weigh(own_key: u32, of_mine: vec4<u32>) {
    let of_row = spread_words(of_mine);
    for (var j = 0u; j < LANES; j++) {
        let lse = bitcast<f32>(of_row[j].x);
        let delta = bitcast<f32>(of_row[j].y);
        let shared_end = min(of_row[j].z, params.prefix);
        for (var r = 0u; r < R; r++) {
            let key = own_key + r;
            let visible = (key >= of_row[j].z && key < of_row[j].w) || key < shared_end;
            let weight = select(0.0, exp(p[r][j / 4u][j % 4u] - lse), visible);
            p[r][j / 4u][j % 4u] = weight;
            dp[r][j / 4u][j % 4u] = weight * (dp[r][j / 4u][j % 4u] - delta);
        }
    }
}

@compute @workgroup_size(8)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let kv_head = workgroup.y;
    let own_key = workgroup.x * OWNED + lane * R;
    if lane == 0u {
        block_span = keys_span(workgroup.x * OWNED);
    }
    let span = workgroupUniformLoad(&block_span) * params.group; // rows

    for (var r = 0u; r < R; r++) {
        let at = (min(own_key + r, params.keys - 1u) * params.n_kv_heads + kv_head) * params.quads;
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                k_rows[r][d] = k[at + d] * params.scale;
                v_rows[r][d] = v[at + d];
            }
        }
    }

    for (var start = span.x; start < span.y; start += LANES) {
        let row = head_row(start + lane, kv_head);
        p = array<Scores, R>();
        dp = array<Scores, R>();
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                q_mine[d] = q[row * params.quads + d];
                let queries = spread(q_mine[d]);
                for (var r = 0u; r < R; r++) {
                    p[r] = with_quad(p[r], k_rows[r][d], queries);
                }
                dy_mine[d] = dy[row * params.quads + d];
                let gradients = spread(dy_mine[d]);
                for (var r = 0u; r < R; r++) {
                    dp[r] = with_quad(dp[r], v_rows[r][d], gradients);
                }
            }
        }
        // A row past the end sees no key.
        weigh(own_key, stats[row] * vec4(1u, 1u, vec2(u32(start + lane < span.y))));
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                let gradients = spread(dy_mine[d]);
                for (var r = 0u; r < R; r++) {
                    dv_sums[r][d] += weighted(p[r], gradients);
                }
                let queries = spread(q_mine[d]);
                for (var r = 0u; r < R; r++) {
                    dk_sums[r][d] += weighted(dp[r], queries);
                }
            }
        }
    }

    for (var r = 0u; r < R; r++) {
        if own_key + r >= params.keys {
            continue;
        }
        let at = ((own_key + r) * params.n_kv_heads + kv_head) * params.quads;
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                dk[at + d] = dk_sums[r][d] * params.scale;
                dv[at + d] = dv_sums[r][d];
            }
        }
    }
}
