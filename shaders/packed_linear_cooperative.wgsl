// y = x weight^T + bias by cooperative matrices: factors of 16 bits, sums of 32. A workgroup of four
// subgroups computes 4 SIDE rows by 4 SIDE outputs, each subgroup a quarter of 2 x 2 matrices;
// weights are unpacked into workgroup memory, one block of 32 inputs at a time.
//
// With SWIGLU, outputs come in pairs (gate, up) and y = silu(gate) * up.
// `x` has whole blocks, zeros past its width.
// Dispatch (ceil(outputs / (4 SIDE)), ceil(rows / (4 SIDE)), 1).
// Oracle: globe_ops::packed_linear, default body, which rounds the factors as well.

#import packed
#import weights
#import stage_f16
#import fragment

const HALF: u32 = 2u * SIDE;
const TILE: u32 = 4u * SIDE;
const WG: u32 = 4u * LANES;
const DEPTH: u32 = 32u; // inputs at a time: one block
const STEP: u32 = 40u; // DEPTH + 8 keeps rows in different banks, and 16 bytes aligned
const CELLS: u32 = SIDE * SIDE;

struct Params {
    rows: u32,
    blocks: u32, // of 32 inputs
    outputs: u32, // rows of this part of the weight
    scale_words: u32, // u32 per row of scales
    y_stride: u32,
    first: u32, // output of the first row of this part
    flags: u32,
}

@group(0) @binding(0) var<storage, read_write> words: array<vec4<u32>>;     // [outputs, blocks, VECS]
@group(0) @binding(1) var<storage, read_write> scales: array<u32>;          // [outputs, scale_words] pairs of f16
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;         // [rows, blocks, 8]
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;            // [all outputs]
@group(0) @binding(4) var<storage, read_write> residual: array<f32>;        // as y
@group(0) @binding(5) var<storage, read_write> y: array<f32>;               // [rows, y_stride]
@group(0) @binding(6) var<uniform> params: Params;

var<workgroup> x_tile: array<f16, TILE * STEP>; // [row][input]
var<workgroup> weight_tile: array<f16, TILE * STEP>; // [output][input]
var<workgroup> finished: array<f32, 4u * CELLS>; // [subgroup][row][output]

fn load_x(local: u32, row_0: u32, b: u32) {
    for (var i = local; i < TILE * 8u; i += WG) {
        let row = min(row_0 + i / 8u, params.rows - 1u);
        let v = staged_x(x[(row * params.blocks + b) * 8u + i % 8u]);
        let at = i / 8u * STEP + i % 8u * 4u;
        for (var c = 0u; c < 4u; c++) {
            x_tile[at + c] = v[c];
        }
    }
}

// Half a block per invocation and round.
fn load_weight(local: u32, output_0: u32, b: u32) {
    for (var i = local; i < TILE * 2u; i += WG) {
        let row = min(output_0 + i / 2u, params.outputs - 1u);
        var block = Block();
        for (var j = 0u; j < VECS; j++) {
            block[j] = words[(row * params.blocks + b) * VECS + j];
        }
        var scale = 1.0;
        if SCALED {
            scale = block_scale(scales[row * params.scale_words + b / 2u], b);
        }
        for (var j = 0u; j < 4u; j++) {
            let k = i % 2u * 4u + j;
            let v = staged_weight(values(block, k) * scale);
            for (var c = 0u; c < 4u; c++) {
                weight_tile[i / 2u * STEP + 4u * k + c] = v[c];
            }
        }
    }
}

fn with_bias(sum: f32, output: u32) -> f32 {
    if (params.flags & BIAS) != 0u {
        return sum + bias[params.first + output];
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

// One finished matrix of each subgroup, through workgroup memory. Every invocation must call it.
fn finish(sum: Sum, team: u32, lane: u32, row_0: u32, output_0: u32) {
    coopStoreT(sum, &finished[team * CELLS], SIDE);
    workgroupBarrier();
    let is_pair = (params.flags & SWIGLU) != 0u;
    for (var i = lane; i < CELLS; i += LANES) {
        let row = row_0 + i / SIDE;
        let output = output_0 + i % SIDE;
        if row >= params.rows || output >= params.outputs {
            continue;
        }
        let value = with_bias(finished[team * CELLS + i], output);
        if !is_pair {
            store(row, params.first + output, value);
        } else if output % 2u == 0u {
            let up = with_bias(finished[team * CELLS + i + 1u], output + 1u);
            store(row, (params.first + output) / 2u, silu_mul(value, up));
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) team: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let output_0 = group.x * TILE;
    let row_0 = group.y * TILE;
    let my_row = team / 2u * HALF;
    let my_output = team % 2u * HALF;

    var sum_00: Sum;
    var sum_01: Sum;
    var sum_10: Sum;
    var sum_11: Sum;
    for (var b = 0u; b < params.blocks; b++) {
        load_x(local, row_0, b);
        load_weight(local, output_0, b);
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d += SIDE) {
            let left_0 = coopLoadT<Left>(&x_tile[my_row * STEP + d], STEP);
            let left_1 = coopLoadT<Left>(&x_tile[(my_row + SIDE) * STEP + d], STEP);
            let right_0 = coopLoad<Right>(&weight_tile[my_output * STEP + d], STEP);
            let right_1 = coopLoad<Right>(&weight_tile[(my_output + SIDE) * STEP + d], STEP);
            sum_00 = coopMultiplyAdd(left_0, right_0, sum_00);
            sum_01 = coopMultiplyAdd(left_0, right_1, sum_01);
            sum_10 = coopMultiplyAdd(left_1, right_0, sum_10);
            sum_11 = coopMultiplyAdd(left_1, right_1, sum_11);
        }
        workgroupBarrier();
    }
    let first_row = row_0 + my_row;
    let first_output = output_0 + my_output;
    finish(sum_00, team, lane, first_row, first_output);
    finish(sum_01, team, lane, first_row, first_output + SIDE);
    finish(sum_10, team, lane, first_row + SIDE, first_output);
    finish(sum_11, team, lane, first_row + SIDE, first_output + SIDE);
}
