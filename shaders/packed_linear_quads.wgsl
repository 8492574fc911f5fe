// y = norm(x) weight^T + bias in subgroups of four: for software adapters that neither unroll loops nor
// keep in registers what a loop indexes, and for which workgroup memory is dear.
//
// Each lane computes four outputs for M rows of x, and brings one quad of one row, or of two, to all lanes. With SWIGLU,
// outputs come in pairs (gate, up) and y = silu(gate) * up. With NORM, x is divided by its root
// mean square and multiplied by `norm`. `x` has whole blocks, zeros past its width; so has `norm`.
// Dispatch (ceil(rows / M), ceil(outputs / 16) folded over y and z): group = z * groups_y + y. Groups with the
// same weights run one after the other and find them in the cache.
// Needs subgroups of exactly 4. Oracle: globe_ops::packed_linear, default body. One row: packed_linear_quad_row.wgsl.

#import packed
#import weights
#import rows

const LANES: u32 = 4u;
const OUTPUTS: u32 = 16u; // of a workgroup

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

// What each lane has, one column per lane.
fn spread(mine: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(
        subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u),
        subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u),
    );
}

// Each column by the four outputs' own factors.
fn scaled(sums: mat4x4<f32>, by: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(sums[0] * by, sums[1] * by, sums[2] * by, sums[3] * by);
}

fn store(row: u32, output: u32, value: f32) {
    let at = row * params.y_stride + output;
    var sum = value;
    if (params.flags & RESIDUAL) != 0u {
        sum += residual[at];
    }
    y[at] = sum;
}

// Four outputs of one row.
fn finish(row: u32, outputs: vec4<u32>, sums: vec4<f32>) {
    let is_pair = (params.flags & SWIGLU) != 0u;
    for (var r = 0u; r < 4u; r++) {
        if outputs[r] >= params.outputs {
            continue;
        }
        if !is_pair {
            store(row, params.first + outputs[r], sums[r]);
        } else if r % 2u == 0u {
            store(row, (params.first + outputs[r]) / 2u, silu_mul(sums[r], sums[r + 1u]));
        }
    }
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let with_norm = (params.flags & NORM) != 0u;
    // Neighbours store side by side; both outputs of a pair are in one lane.
    let is_pair = (params.flags & SWIGLU) != 0u;
    let places = select(lane + vec4(0u, 4u, 8u, 12u), 2u * lane + vec4(0u, 1u, 8u, 9u), is_pair);
    let outputs = (group.z * params.groups_y + group.y) * OUTPUTS + places;
    let weight_row = min(outputs, vec4(params.outputs - 1u));
    // The rows of x that this lane brings.
    let x_row = group.x * M;
    let brings = x_row + vec2(lane, LANES + lane);
    let x_at = min(brings, vec2(params.rows - 1u)) * params.blocks * 8u;

    var low = mat4x4<f32>(); // [row][output]
    var high = mat4x4<f32>(); // of the rows 4 .. 8
    var sum_sq = vec2<f32>();
    for (var b = 0u; b < params.blocks; b++) {
        let at = (weight_row * params.blocks + b) * VECS;
        var part_low = mat4x4<f32>();
        var part_high = mat4x4<f32>();
        for (var i = 0u; i < VECS; i++) {
            let vectors = array(words[at.x + i], words[at.y + i], words[at.z + i], words[at.w + i]);
            for (var j = 0u; j < PER_VEC; j++) {
                let k = b * 8u + i * PER_VEC + j;
                let weight = mat4x4(
                    vec_values(vectors[0], j), vec_values(vectors[1], j),
                    vec_values(vectors[2], j), vec_values(vectors[3], j),
                );
                var factor = vec4(1.0);
                if with_norm {
                    factor = norm[k];
                }
                let mine = x[x_at.x + k];
                sum_sq.x += dot(mine, mine);
                part_low += transpose(weight) * spread(mine * factor);
                if M > LANES {
                    let more = x[x_at.y + k];
                    sum_sq.y += dot(more, more);
                    part_high += transpose(weight) * spread(more * factor);
                }
            }
        }
        if SCALED {
            let scale_at = weight_row * params.scale_words + b / 2u;
            let scale = vec4(
                block_scale(scales[scale_at.x], b), block_scale(scales[scale_at.y], b),
                block_scale(scales[scale_at.z], b), block_scale(scales[scale_at.w], b),
            );
            part_low = scaled(part_low, scale);
            part_high = scaled(part_high, scale);
        }
        low += part_low;
        high += part_high;
    }

    if with_norm {
        let shrink = inverseSqrt(sum_sq / params.norm_dim + params.eps);
        let by = spread(vec4(shrink, 0.0, 0.0));
        low = mat4x4(low[0] * by[0].x, low[1] * by[1].x, low[2] * by[2].x, low[3] * by[3].x);
        high = mat4x4(high[0] * by[0].y, high[1] * by[1].y, high[2] * by[2].y, high[3] * by[3].y);
    }
    var added = vec4<f32>();
    if (params.flags & BIAS) != 0u {
        let at = params.first + weight_row;
        added = vec4(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
    }
    for (var m = 0u; m < min(M, params.rows - x_row); m++) {
        var sums = low[m % LANES];
        if m >= LANES {
            sums = high[m % LANES];
        }
        finish(x_row + m, outputs, sums + added);
    }
}
