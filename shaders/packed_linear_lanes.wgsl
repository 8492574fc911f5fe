// y = norm(x) weight^T + bias, a weight row per lane: for software adapters, where a gathered load
// costs a loop over lanes and a broadcast within the subgroup costs nothing.
//
// Each invocation computes R consecutive outputs for M rows of x. With SWIGLU, outputs come in
// pairs (gate, up) and y = silu(gate) * up. With NORM, x is divided by its root mean square and
// multiplied by `norm`. `x` has whole blocks, zeros past its width; so has `norm`.
// Dispatch (ceil(rows / M), ceil(outputs / 32) folded over y and z): group = z * groups_y + y. Groups with the
// same weights run one after the other and find them in the cache.
// Needs subgroups of exactly 8. Oracle: globe_ops::packed_linear, default body.

#import packed
#import weights
#import rows

const R: u32 = 4u;
const LANES: u32 = 8u;

struct Params {
    rows: u32,
    blocks: u32, // of 32 inputs
    outputs: u32, // rows of this part of the weight
    scale_words: u32, // u32 per row of scales
    y_stride: u32,
    first: u32, // output of the first row of this part
    flags: u32,
    groups_y: u32,
    norm_dim: f32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read_write> words: array<vec4<u32>>;     // [outputs, blocks, VECS]
@group(0) @binding(1) var<storage, read_write> scales: array<u32>;          // [outputs, scale_words] pairs of f16
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;         // [rows, blocks, 8]
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;            // [all outputs]
@group(0) @binding(4) var<storage, read_write> norm: array<vec4<f32>>;      // [blocks, 8]
@group(0) @binding(5) var<storage, read_write> residual: array<f32>;        // as y
@group(0) @binding(6) var<storage, read_write> y: array<f32>;               // [rows, y_stride]
@group(0) @binding(7) var<uniform> params: Params;

var<private> block: array<Block, R>;
var<private> spread: array<vec4<f32>, M>;
var<private> part: array<f32, R * M>;

// Adds the products of inputs 4k .. 4k + 4 of the block.
fn accumulate(k: u32) {
    for (var r = 0u; r < R; r++) {
        let w = values(block[r], k);
        for (var m = 0u; m < M; m++) {
            let p = w * spread[m];
            part[r * M + m] += (p.x + p.y) + (p.z + p.w);
        }
    }
}

fn store(row: u32, output: u32, value: f32) {
    let at = row * params.y_stride + output;
    var sum = value;
    if (params.flags & RESIDUAL) != 0u {
        sum += residual[at];
    }
    y[at] = sum;
}

@compute @workgroup_size(8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = ((group.z * params.groups_y + group.y) * LANES + lane) * R;
    let x_row = group.x * M;
    let with_norm = (params.flags & NORM) != 0u;

    var total = array<f32, R * M>();
    var sum_sq = array<f32, M>();
    for (var b = 0u; b < params.blocks; b++) {
        var mine = array<vec4<f32>, M>();
        for (var m = 0u; m < M; m++) {
            mine[m] = x[(min(x_row + m, params.rows - 1u) * params.blocks + b) * LANES + lane];
        }
        if with_norm {
            let scale = norm[b * LANES + lane];
            for (var m = 0u; m < M; m++) {
                sum_sq[m] += dot(mine[m], mine[m]);
                mine[m] *= scale;
            }
        }
        for (var r = 0u; r < R; r++) {
            let at = (min(first + r, params.outputs - 1u) * params.blocks + b) * VECS;
            for (var i = 0u; i < VECS; i++) {
                block[r][i] = words[at + i];
            }
        }
        part = array<f32, R * M>();
        // The lane of a broadcast must be a constant, hence eight times the same two lines.
        for (var m = 0u; m < M; m++) { spread[m] = subgroupBroadcast(mine[m], 0u); }
        accumulate(0u);
        for (var m = 0u; m < M; m++) { spread[m] = subgroupBroadcast(mine[m], 1u); }
        accumulate(1u);
        for (var m = 0u; m < M; m++) { spread[m] = subgroupBroadcast(mine[m], 2u); }
        accumulate(2u);
        for (var m = 0u; m < M; m++) { spread[m] = subgroupBroadcast(mine[m], 3u); }
        accumulate(3u);
        for (var m = 0u; m < M; m++) { spread[m] = subgroupBroadcast(mine[m], 4u); }
        accumulate(4u);
        for (var m = 0u; m < M; m++) { spread[m] = subgroupBroadcast(mine[m], 5u); }
        accumulate(5u);
        for (var m = 0u; m < M; m++) { spread[m] = subgroupBroadcast(mine[m], 6u); }
        accumulate(6u);
        for (var m = 0u; m < M; m++) { spread[m] = subgroupBroadcast(mine[m], 7u); }
        accumulate(7u);
        for (var r = 0u; r < R; r++) {
            var scale = 1.0;
            if SCALED {
                let row = min(first + r, params.outputs - 1u);
                scale = block_scale(scales[row * params.scale_words + b / 2u], b);
            }
            for (var m = 0u; m < M; m++) {
                total[r * M + m] += part[r * M + m] * scale;
            }
        }
    }

    for (var m = 0u; m < M; m++) {
        var shrink = 1.0;
        if with_norm {
            shrink = inverseSqrt(subgroupAdd(sum_sq[m]) / params.norm_dim + params.eps);
        }
        for (var r = 0u; r < R; r++) {
            var value = total[r * M + m] * shrink;
            if (params.flags & BIAS) != 0u {
                value += bias[min(params.first + first + r, params.first + params.outputs - 1u)];
            }
            total[r * M + m] = value;
        }
    }
    for (var m = 0u; m < M; m++) {
        let row = x_row + m;
        for (var r = 0u; r < R; r++) {
            if row >= params.rows || first + r >= params.outputs {
                continue;
            }
            if (params.flags & SWIGLU) == 0u {
                store(row, params.first + first + r, total[r * M + m]);
            } else if r % 2u == 0u {
                let gate = total[r * M + m];
                let up = total[(r + 1u) % R * M + m];
                store(row, (params.first + first + r) / 2u, silu_mul(gate, up));
            }
        }
    }
}
