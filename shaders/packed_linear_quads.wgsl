// y = x weight^T + bias in subgroups of four: for software adapters that neither unroll loops nor
// keep in registers what a loop indexes, and for which workgroup memory is dear.
//
// Every load of a lane is a load of its own there, so each number is loaded once: a lane computes eight outputs for M rows
// of x, and loads one row, or two, for all lanes. They swap rows with their neighbours, so that row m of a lane is the one
// that lane ^ m loaded. With SWIGLU, outputs come in pairs (gate, up) and y = silu(gate) * up.
// `x` has whole blocks, zeros past its width.
// Dispatch (ceil(rows / M), ceil(outputs / 32) folded over y and z): group = z * groups_y + y. Groups with the
// same weights run one after the other and find them in the cache.
// Needs subgroups of exactly 4. Oracle: globe_ops::packed_linear, default body. One row: packed_linear_quad_row.wgsl.

#import packed
#import weights
#import eights
#import scales
#import four_lanes
#import norm
#import rows

const LANES: u32 = 4u;
const OUTPUTS: u32 = 32u; // of a workgroup

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

@group(0) @binding(0) var<storage, read_write> words: array<Words>;         // [outputs, blocks]
@group(0) @binding(1) var<storage, read_write> scales: array<u32>;          // [outputs, scale_words] pairs of f16
@group(0) @binding(2) var<storage, read_write> x: array<array<vec4<f32>, 8>>; // [rows, blocks]
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;            // [all outputs]
@group(0) @binding(4) var<storage, read_write> residual: array<f32>;        // as y
@group(0) @binding(5) var<storage, read_write> y: array<f32>;               // [rows, y_stride]

// The same eight weights of four outputs: one column for each weight.
struct Columns {
    even: mat4x4<f32>,
    odd: mat4x4<f32>,
}

fn columns(units: array<Unit, 4>, i: u32, scale: vec4<f32>) -> Columns {
    let one = eight(units[0], i, scale.x);
    let two = eight(units[1], i, scale.y);
    let three = eight(units[2], i, scale.z);
    let four = eight(units[3], i, scale.w);
    return Columns(
        transpose(mat4x4(one[0], two[0], three[0], four[0])),
        transpose(mat4x4(one[1], two[1], three[1], four[1])),
    );
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

fn bias_of(row: vec4<u32>) -> vec4<f32> {
    if (params.flags & BIAS) == 0u {
        return vec4<f32>();
    }
    let at = params.first + row;
    return vec4(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // Neighbours store side by side; both outputs of a pair are in one lane.
    let is_pair = (params.flags & SWIGLU) != 0u;
    let places = select(lane + vec4(0u, 4u, 8u, 12u), 2u * lane + vec4(0u, 1u, 8u, 9u), is_pair);
    let near = (group.z * params.groups_y + group.y) * OUTPUTS + places;
    let far = near + 16u;
    let near_row = min(near, vec4(params.outputs - 1u));
    let far_row = min(far, vec4(params.outputs - 1u));
    // The rows of x that this lane loads.
    let x_row = group.x * M;
    let x_at = min(x_row + vec2(lane, LANES + lane), vec2(params.rows - 1u)) * params.blocks;

    var near_low = mat4x4<f32>(); // [row][output]
    var near_high = mat4x4<f32>(); // of the rows 4 .. 8
    var far_low = mat4x4<f32>();
    var far_high = mat4x4<f32>();
    var low_squares = 0.0;
    var high_squares = 0.0;
    for (var b = 0u; b < params.blocks; b++) {
        let near_scale = scales_of(scales_at(near_row * params.scale_words + b / 2u), b);
        let far_scale = scales_of(scales_at(far_row * params.scale_words + b / 2u), b);
        let near_at = near_row * params.blocks + b;
        let far_at = far_row * params.blocks + b;
        let w0 = &words[near_at.x];
        let w1 = &words[near_at.y];
        let w2 = &words[near_at.z];
        let w3 = &words[near_at.w];
        let w4 = &words[far_at.x];
        let w5 = &words[far_at.y];
        let w6 = &words[far_at.z];
        let w7 = &words[far_at.w];
        let low_x = &x[x_at.x + b];
        let high_x = &x[x_at.y + b];
        for (var u = 0u; u < UNITS; u++) {
            let near_units = array((*w0)[u], (*w1)[u], (*w2)[u], (*w3)[u]);
            let far_units = array((*w4)[u], (*w5)[u], (*w6)[u], (*w7)[u]);
            for (var i = 0u; i < EIGHTS; i++) {
                let k = 2u * (u * EIGHTS + i);
                let near_columns = columns(near_units, i, near_scale);
                let far_columns = columns(far_units, i, far_scale);
                let by = norm_weights(b, k);
                let x_even = (*low_x)[k];
                let x_odd = (*low_x)[k + 1u];
                low_squares += squares(x_even) + squares(x_odd);
                let even = of_lanes(x_even * by[0]);
                let odd = of_lanes(x_odd * by[1]);
                near_low += near_columns.even * even + near_columns.odd * odd;
                far_low += far_columns.even * even + far_columns.odd * odd;
                if M > LANES {
                    let x_even = (*high_x)[k];
                    let x_odd = (*high_x)[k + 1u];
                    high_squares += squares(x_even) + squares(x_odd);
                    let even = of_lanes(x_even * by[0]);
                    let odd = of_lanes(x_odd * by[1]);
                    near_high += near_columns.even * even + near_columns.odd * odd;
                    far_high += far_columns.even * even + far_columns.odd * odd;
                }
            }
        }
    }

    // Row m is the one that lane ^ m loaded.
    let low_by = of_lanes(vec4(one_over_root(low_squares)));
    let high_by = of_lanes(vec4(one_over_root(high_squares)));
    let near_bias = bias_of(near_row);
    let far_bias = bias_of(far_row);
    for (var m = 0u; m < M; m++) {
        let row = x_row + (m & 4u) + (lane ^ (m & 3u));
        if row >= params.rows {
            continue;
        }
        let i = m % LANES;
        var near_sums = near_low[i] * low_by[i];
        var far_sums = far_low[i] * low_by[i];
        if m >= LANES {
            near_sums = near_high[i] * high_by[i];
            far_sums = far_high[i] * high_by[i];
        }
        finish(row, near, near_sums + near_bias);
        finish(row, far, far_sums + far_bias);
    }
}
