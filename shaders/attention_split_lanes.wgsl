// As attention_split.wgsl, for adapters whose loads are dear: every lane owns M queries, and 8 keys at a
// time are loaded once for all lanes of the subgroup. attention_merge.wgsl puts the parts together.
//
// A query is a head of a row. The workgroups of one launch take the queries of one row each, or those of all
// rows in turn, which then share what they load: `part` says for which keys.
// A workgroup is one subgroup of exactly 8. Dispatch (chunks, n_kv_heads, ceil(rows * group / (8 M)) with
// SHARED, else rows * teams). params.quads at most QUADS. Oracle: globe_ops::attention_step, default body.

#import quads
#import rows
#import attention_lanes
#import kv

const KEYS: u32 = 64u; // keys per workgroup
const SHARED: u32 = 1u; // chunks of keys that lie within the prefix as a whole, which all rows read
const REST: u32 = 2u; // all other chunks; another value: all chunks

struct Params {
    rows: u32,
    n_kv_heads: u32,
    group: u32, // query heads per key head
    quads: u32, // head_dim / 4
    chunks: u32,
    window: u32, // 0: none
    teams: u32, // ceil(group / (8 M))
    part: u32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read_write> q: array<vec4<f32>>;        // [rows, n_heads, quads]
@group(0) @binding(1) var<storage, read_write> k: array<KvQuad>;           // [slots, n_kv_heads, quads]
@group(0) @binding(2) var<storage, read_write> v: array<KvQuad>;           // [slots, n_kv_heads, quads]
@group(0) @binding(3) var<storage, read_write> places: array<vec4<i32>>;   // [rows] prefix, tail start, tail length, position
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;     // [rows, n_heads, chunks, quads]
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;    // [rows, n_heads, chunks] highest score, sum of weights
@group(0) @binding(6) var<uniform> params: Params;

// Through workgroup memory, so that the compiler knows that all lanes walk as far.
var<workgroup> keys_stop: u32;

var<private> q_rows: array<Row, M>;
var<private> weighted_sums: array<Row, M>;
var<private> scores: array<Scores, M>;

// Whether this launch takes a chunk of a row with this place.
fn is_taken(chunk: u32, place: vec4<u32>) -> bool {
    let is_shared = (chunk + 1u) * KEYS <= min(place.x, u32(places[0].x));
    let is_all = params.part != SHARED && params.part != REST;
    let is_here = is_all || (params.part == SHARED) == is_shared;
    return is_here && chunk * KEYS < place.x + place.z;
}

@compute @workgroup_size(8)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunk = workgroup.x;
    let kv_head = workgroup.y;
    let heads = params.n_kv_heads * params.group;
    let of_all = params.part == SHARED;
    let own_row = select(workgroup.z / params.teams, 0u, of_all);
    let first = select(workgroup.z % params.teams, workgroup.z, of_all) * LANES * M + lane * M;
    let queries = select(params.group, params.rows * params.group, of_all);

    var at = array<u32, M>(); // row * heads + head
    var is_mine = array<bool, M>();
    var len = array<u32, M>();
    var oldest = array<u32, M>();
    for (var m = 0u; m < M; m++) {
        let query = min(first + m, queries - 1u);
        let row = own_row + query / params.group;
        let place = vec4<u32>(places[row]);
        at[m] = row * heads + kv_head * params.group + query % params.group;
        is_mine[m] = first + m < queries && is_taken(chunk, place);
        len[m] = place.x + place.z;
        oldest[m] = select(0u, len[m] - min(len[m], params.window), params.window > 0u);
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                q_rows[m][d] = q[at[m] * params.quads + d] * params.scale;
            }
        }
    }

    // Keys beyond the prefix are those of this workgroup's one row.
    let place = vec4<u32>(places[own_row]);
    var highest = array<f32, M>();
    for (var m = 0u; m < M; m++) { highest[m] = LOWEST; }
    var total = array<f32, M>();
    var shrink = array<f32, M>();
    if lane == 0u {
        keys_stop = select(chunk * KEYS, min((chunk + 1u) * KEYS, place.x + place.z), is_taken(chunk, place));
    }
    let stop = workgroupUniformLoad(&keys_stop);
    for (var start = chunk * KEYS; start < stop; start += LANES) {
        var slot = min(start + lane, stop - 1u);
        if !of_all && slot >= place.x {
            slot += place.y - place.x;
        }
        let mine = (slot * params.n_kv_heads + kv_head) * params.quads;

        scores = array<Scores, M>();
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                let walked = spread(kv_values(k[mine + d]));
                for (var m = 0u; m < M; m++) {
                    scores[m] = with_quad(scores[m], q_rows[m][d], walked);
                }
            }
        }
        for (var m = 0u; m < M; m++) {
            for (var half = 0u; half < 2u; half++) {
                let key = vec4(0u, 1u, 2u, 3u) + start + 4u * half;
                let visible = (key >= vec4(oldest[m])) & (key < vec4(len[m]));
                scores[m][half] = select(vec4(LOWEST), scores[m][half], visible);
            }
            let four = max(scores[m][0], scores[m][1]);
            let before = highest[m];
            highest[m] = max(before, max(max(four.x, four.y), max(four.z, four.w)));
            for (var half = 0u; half < 2u; half++) {
                let w = scores[m][half];
                scores[m][half] = select(vec4(0.0), exp(w - highest[m]), w > vec4(LOWEST));
            }
            shrink[m] = exp(before - highest[m]);
            total[m] = total[m] * shrink[m] + dot(scores[m][0] + scores[m][1], vec4(1.0));
        }
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                let walked = spread(kv_values(v[mine + d]));
                for (var m = 0u; m < M; m++) {
                    weighted_sums[m][d] = weighted_sums[m][d] * shrink[m] + weighted(scores[m], walked);
                }
            }
        }
    }

    for (var m = 0u; m < M; m++) {
        if !is_mine[m] {
            continue;
        }
        let to = at[m] * params.chunks + chunk;
        stats[to] = vec2(highest[m], total[m]);
        for (var d = 0u; d < QUADS; d++) {
            if d < params.quads {
                sums[to * params.quads + d] = weighted_sums[m][d];
            }
        }
    }
}
