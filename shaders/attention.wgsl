// y = softmax(q k^T * scale) v, each query over its own range of keys, without storing scores:
// the running maximum and sum of "Online normalizer calculation for softmax" (arXiv 1805.02867).
//
// A causal query reads [0, its position], a window query its window, so one kernel serves the
// text model, its cache, and both kinds of vision block. The query heads that share a key head
// are rows of the same workgroup: row = token * group + head in group.
// Dispatch (ceil(tokens * group / 16), n_kv_heads, 1). head_dim at most 128.
// Oracle: globe_ops::attention, default body.

const ROWS: u32 = 16u; // query rows per workgroup
const LANES: u32 = 8u; // invocations per row
const KEYS: u32 = 8u; // keys per step: one score per lane
const MAX_DIM: u32 = 128u;
const PER_LANE: u32 = 16u; // MAX_DIM / LANES
const LOWEST: f32 = -1e30;

struct Params {
    tokens: u32,
    n_kv_heads: u32,
    group: u32, // query heads per key head
    head_dim: u32,
    keys: u32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read_write> q: array<f32>;         // [tokens, n_heads, head_dim]
@group(0) @binding(1) var<storage, read_write> k: array<f32>;         // [keys, n_kv_heads, head_dim]
@group(0) @binding(2) var<storage, read_write> v: array<f32>;         // [keys, n_kv_heads, head_dim]
@group(0) @binding(3) var<storage, read_write> ranges: array<i32>;    // [tokens, first key and end]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;         // [tokens, n_heads, head_dim]
@group(0) @binding(5) var<uniform> params: Params;

var<workgroup> q_tile: array<f32, ROWS * MAX_DIM>;
var<workgroup> kv_tile: array<f32, KEYS * MAX_DIM>; // keys, then the values of the same keys
var<workgroup> scores: array<f32, ROWS * KEYS>;
var<workgroup> weights: array<f32, ROWS * KEYS>;
var<workgroup> block_range: vec2<u32>;

// The keys that token may read, cut to those that exist.
fn key_range(token: u32) -> vec2<u32> {
    let first = u32(max(ranges[2u * token], 0));
    let end = min(u32(max(ranges[2u * token + 1u], 0)), params.keys);
    return vec2(first, end);
}

// Where row starts in q and y. Rows past the end repeat the last one and are never stored.
fn row_base(row: u32, kv_head: u32) -> u32 {
    let token = row / params.group;
    let head = kv_head * params.group + row % params.group;
    return (token * params.n_kv_heads * params.group + head) * params.head_dim;
}

fn load_tile(from_values: bool, first: u32, end: u32, kv_head: u32, local: u32) {
    for (var i = local; i < KEYS * params.head_dim; i += ROWS * LANES) {
        let key = first + i / params.head_dim;
        let d = i % params.head_dim;
        let at = (key * params.n_kv_heads + kv_head) * params.head_dim + d;
        var value = 0.0;
        if key < end {
            if from_values {
                value = v[at];
            } else {
                value = k[at];
            }
        }
        kv_tile[(i / params.head_dim) * MAX_DIM + d] = value;
    }
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let kv_head = workgroup.y;
    let last_row = params.tokens * params.group - 1u;
    let first_row = workgroup.x * ROWS;
    let row = local / LANES;
    let lane = local % LANES;

    for (var i = local; i < ROWS * params.head_dim; i += ROWS * LANES) {
        let d = i % params.head_dim;
        let source = min(first_row + i / params.head_dim, last_row);
        q_tile[(i / params.head_dim) * MAX_DIM + d] = q[row_base(source, kv_head) + d];
    }
    let my_row = min(first_row + row, last_row);
    let mine = key_range(my_row / params.group);
    if local == 0u {
        var all = mine;
        for (var r = 1u; r < ROWS; r++) {
            let other = key_range(min(first_row + r, last_row) / params.group);
            all = vec2(min(all.x, other.x), max(all.y, other.y));
        }
        block_range = all;
    }
    let block = workgroupUniformLoad(&block_range);

    var highest = LOWEST;
    var total = 0.0;
    var sums: array<f32, PER_LANE>;
    for (var first = block.x; first < block.y; first += KEYS) {
        load_tile(false, first, block.y, kv_head, local);
        workgroupBarrier();

        let key = first + lane;
        let visible = key >= mine.x && key < mine.y;
        var score = 0.0;
        for (var d = 0u; d < params.head_dim; d++) {
            score += q_tile[row * MAX_DIM + d] * kv_tile[lane * MAX_DIM + d];
        }
        score = select(LOWEST, score * params.scale, visible);
        scores[local] = score;
        workgroupBarrier();

        load_tile(true, first, block.y, kv_head, local);
        let before = highest;
        for (var j = 0u; j < KEYS; j++) {
            highest = max(highest, scores[row * KEYS + j]);
        }
        weights[local] = select(0.0, exp(score - highest), visible);
        workgroupBarrier();

        let shrink = exp(before - highest);
        total *= shrink;
        for (var j = 0u; j < KEYS; j++) {
            total += weights[row * KEYS + j];
        }
        for (var i = 0u; i < PER_LANE; i++) {
            let d = i * LANES + lane;
            if d < params.head_dim {
                var sum = sums[i] * shrink;
                for (var j = 0u; j < KEYS; j++) {
                    sum += weights[row * KEYS + j] * kv_tile[j * MAX_DIM + d];
                }
                sums[i] = sum;
            }
        }
        workgroupBarrier();
    }

    if first_row + row <= last_row {
        let base = row_base(my_row, kv_head);
        let norm = select(0.0, 1.0 / total, total > 0.0); // an empty range gives zeros
        for (var i = 0u; i < PER_LANE; i++) {
            let d = i * LANES + lane;
            if d < params.head_dim {
                y[base + d] = sums[i] * norm;
            }
        }
    }
}
