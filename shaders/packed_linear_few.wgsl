// y = norm(x) weight^T + bias for few rows of x: 32 lanes walk two weight rows together, so that
// a warp reads consecutive words, and one read of the weights serves M rows of x.
//
// With SWIGLU, outputs come in pairs (gate, up) and y = silu(gate) * up. With NORM, x is divided
// by its root mean square and multiplied by `norm`. `x` has whole blocks, zeros past its width.
// Dispatch (ceil(rows / M), ceil(outputs / 16) folded over y and z): group = z * groups_y + y. Groups with the
// same weights run one after the other and find them in the cache.
// Oracle: globe_ops::packed_linear, default body. Many rows: packed_linear_tile.wgsl.

#import packed
#import weights
#import rows
#import team

const R: u32 = 2u; // weight rows per team
const LANES: u32 = 32u; // invocations per team
const TEAMS: u32 = 8u;
const WG: u32 = 256u;

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

const SLOTS: u32 = WG / LEAST_STRIDE;

// Sums of one weight row, or squares of x. A browser zeroes this memory for every workgroup: the less, the better.
var<workgroup> scratch: array<f32, M * SLOTS>;

fn put_part(m: u32, local: u32, stride: u32, value: f32) {
    let part = team_part(value);
    if local % stride == 0u {
        scratch[m * SLOTS + local / stride] = part;
    }
}

// Sum over a team of what its invocations left in scratch for row m.
fn team_sum(m: u32, team: u32, stride: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < LANES / stride; i++) {
        sum += scratch[m * SLOTS + team * LANES / stride + i];
    }
    return sum;
}

fn store(row: u32, output: u32, value: f32) {
    let at = row * params.y_stride + output;
    var sum = value;
    if (params.flags & RESIDUAL) != 0u {
        sum += residual[at];
    }
    y[at] = sum;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let team = local / LANES;
    let lane = local % LANES;
    let first = ((group.z * params.groups_y + group.y) * TEAMS + team) * R;
    let x_row = group.x * M;
    let with_norm = (params.flags & NORM) != 0u;

    var total = array<f32, R * M>();
    var sum_sq = array<f32, M>();
    for (var b = lane; b < params.blocks; b += LANES) {
        var part = array<f32, R * M>();
        var block = array<Block, R>();
        for (var r = 0u; r < R; r++) {
            let at = (min(first + r, params.outputs - 1u) * params.blocks + b) * VECS;
            for (var i = 0u; i < VECS; i++) {
                block[r][i] = words[at + i];
            }
        }
        for (var k = 0u; k < 8u; k++) {
            let scale = select(vec4(1.0), norm[select(0u, b * 8u + k, with_norm)], with_norm);
            var w = array<vec4<f32>, R>();
            for (var r = 0u; r < R; r++) {
                w[r] = values(block[r], k) * scale;
            }
            for (var m = 0u; m < M; m++) {
                let v = x[(min(x_row + m, params.rows - 1u) * params.blocks + b) * 8u + k];
                sum_sq[m] += dot(v, v);
                for (var r = 0u; r < R; r++) {
                    part[r * M + m] += dot(w[r], v);
                }
            }
        }
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

    // Lane m of a team finishes row m: M is at most LANES.
    let stride = team_stride();
    var shrink = 1.0;
    if with_norm {
        for (var m = 0u; m < M; m++) {
            put_part(m, local, stride, sum_sq[m]);
        }
        workgroupBarrier();
        if lane < M {
            shrink = inverseSqrt(team_sum(lane, team, stride) / params.norm_dim + params.eps);
        }
        workgroupBarrier();
    }
    var done = array<f32, R>();
    for (var r = 0u; r < R; r++) {
        for (var m = 0u; m < M; m++) {
            put_part(m, local, stride, total[r * M + m]);
        }
        workgroupBarrier();
        if lane < M {
            done[r] = team_sum(lane, team, stride) * shrink;
            if (params.flags & BIAS) != 0u {
                done[r] += bias[params.first + min(first + r, params.outputs - 1u)];
            }
        }
        workgroupBarrier();
    }

    let row = x_row + lane;
    if lane >= M || row >= params.rows || first >= params.outputs {
        return;
    }
    if (params.flags & SWIGLU) != 0u {
        let gate = done[0];
        store(row, (params.first + first) / 2u, silu_mul(gate, done[1]));
        return;
    }
    for (var r = 0u; r < R; r++) {
        if first + r < params.outputs {
            store(row, params.first + first + r, done[r]);
        }
    }
}
