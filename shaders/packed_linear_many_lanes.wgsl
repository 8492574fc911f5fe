// y = norm(x) weight^T + bias as in packed_linear_lanes.wgsl, for 16 rows of x: what is read and unpacked of
// the weights serves all of them.
//
// Each invocation computes R consecutive outputs, four rows at a time. Their sums stand in line: those of the
// four rows at work are first in `line_0`, and go to the end of the line afterwards. An index into them would be
// a gather, sixteen rows written out would not fit into the cache for instructions.
// Dispatch (ceil(rows / 16), ceil(outputs / 128) folded over y and z): group = z * groups_y + y.
// Needs subgroups of exactly 8. Oracle: globe_ops::packed_linear, default body.

#import packed
#import weights

const R: u32 = 16u;
const LANES: u32 = 8u;
const ROWS: u32 = 16u;

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
    turns: u32, // 4, as a number that the compiler does not know, so that it leaves the loop a loop
}

@group(0) @binding(0) var<storage, read_write> words: array<vec4<u32>>;     // [outputs, blocks, VECS]
@group(0) @binding(1) var<storage, read_write> scales: array<u32>;          // [outputs, scale_words] pairs of f16
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;         // [rows, blocks, 8]
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;            // [all outputs]
@group(0) @binding(4) var<storage, read_write> norm: array<vec4<f32>>;      // [blocks, 8]
@group(0) @binding(5) var<storage, read_write> residual: array<f32>;        // as y
@group(0) @binding(6) var<storage, read_write> y: array<f32>;               // [rows, y_stride]
@group(0) @binding(7) var<uniform> params: Params;

var<private> unpacked: array<vec4<f32>, 8u * R>;
var<private> scale: array<f32, R>;
var<private> part: array<vec4<f32>, R>; // of four rows
// Sums of four rows each, and of the squares of their inputs.
var<private> line_0: array<vec4<f32>, R>;
var<private> line_1: array<vec4<f32>, R>;
var<private> line_2: array<vec4<f32>, R>;
var<private> line_3: array<vec4<f32>, R>;
var<private> squares: mat4x4<f32>;

// The line moved on by one, `value` at its end.
fn enqueue(r: u32, value: vec4<f32>) {
    line_0[r] = line_1[r];
    line_1[r] = line_2[r];
    line_2[r] = line_3[r];
    line_3[r] = value;
}

fn enqueue_squares(value: vec4<f32>) {
    squares = mat4x4(squares[1], squares[2], squares[3], value);
}

// In the order of packed_linear_lanes.wgsl: a row has the same sum alone and among others.
fn product(w: vec4<f32>, inputs: vec4<f32>) -> f32 {
    let p = w * inputs;
    return (p.x + p.y) + (p.z + p.w);
}

// Adds the products of inputs 4k .. 4k + 4 of the block, one column per row.
fn accumulate(k: u32, inputs: mat4x4<f32>) {
    for (var r = 0u; r < R; r++) {
        let w = unpacked[8u * r + k];
        part[r] += vec4(product(w, inputs[0]), product(w, inputs[1]), product(w, inputs[2]), product(w, inputs[3]));
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
    let x_row = group.x * ROWS;
    let with_norm = (params.flags & NORM) != 0u;

    for (var b = 0u; b < params.blocks; b++) {
        for (var r = 0u; r < R; r++) {
            let row = min(first + r, params.outputs - 1u);
            var block = Block();
            for (var i = 0u; i < VECS; i++) {
                block[i] = words[(row * params.blocks + b) * VECS + i];
            }
            for (var k = 0u; k < 8u; k++) {
                unpacked[8u * r + k] = values(block, k);
            }
            scale[r] = 1.0;
            if SCALED {
                scale[r] = block_scale(scales[row * params.scale_words + b / 2u], b);
            }
        }
        var factor = vec4(1.0);
        if with_norm {
            factor = norm[b * LANES + lane];
        }
        for (var turn = 0u; turn < params.turns; turn++) {
            var mine = mat4x4<f32>();
            for (var m = 0u; m < 4u; m++) {
                let row = min(x_row + 4u * turn + m, params.rows - 1u);
                mine[m] = x[(row * params.blocks + b) * LANES + lane];
            }
            enqueue_squares(squares[0] + vec4(
                dot(mine[0], mine[0]), dot(mine[1], mine[1]), dot(mine[2], mine[2]), dot(mine[3], mine[3]),
            ));
            let inputs = mat4x4(mine[0] * factor, mine[1] * factor, mine[2] * factor, mine[3] * factor);
            part = array<vec4<f32>, R>();
            // The lane of a broadcast must be a constant.
            accumulate(0u, mat4x4(
                subgroupBroadcast(inputs[0], 0u), subgroupBroadcast(inputs[1], 0u),
                subgroupBroadcast(inputs[2], 0u), subgroupBroadcast(inputs[3], 0u),
            ));
            accumulate(1u, mat4x4(
                subgroupBroadcast(inputs[0], 1u), subgroupBroadcast(inputs[1], 1u),
                subgroupBroadcast(inputs[2], 1u), subgroupBroadcast(inputs[3], 1u),
            ));
            accumulate(2u, mat4x4(
                subgroupBroadcast(inputs[0], 2u), subgroupBroadcast(inputs[1], 2u),
                subgroupBroadcast(inputs[2], 2u), subgroupBroadcast(inputs[3], 2u),
            ));
            accumulate(3u, mat4x4(
                subgroupBroadcast(inputs[0], 3u), subgroupBroadcast(inputs[1], 3u),
                subgroupBroadcast(inputs[2], 3u), subgroupBroadcast(inputs[3], 3u),
            ));
            accumulate(4u, mat4x4(
                subgroupBroadcast(inputs[0], 4u), subgroupBroadcast(inputs[1], 4u),
                subgroupBroadcast(inputs[2], 4u), subgroupBroadcast(inputs[3], 4u),
            ));
            accumulate(5u, mat4x4(
                subgroupBroadcast(inputs[0], 5u), subgroupBroadcast(inputs[1], 5u),
                subgroupBroadcast(inputs[2], 5u), subgroupBroadcast(inputs[3], 5u),
            ));
            accumulate(6u, mat4x4(
                subgroupBroadcast(inputs[0], 6u), subgroupBroadcast(inputs[1], 6u),
                subgroupBroadcast(inputs[2], 6u), subgroupBroadcast(inputs[3], 6u),
            ));
            accumulate(7u, mat4x4(
                subgroupBroadcast(inputs[0], 7u), subgroupBroadcast(inputs[1], 7u),
                subgroupBroadcast(inputs[2], 7u), subgroupBroadcast(inputs[3], 7u),
            ));
            for (var r = 0u; r < R; r++) {
                enqueue(r, line_0[r] + part[r] * scale[r]);
            }
        }
    }

    for (var turn = 0u; turn < params.turns; turn++) {
        var shrink = vec4(1.0);
        if with_norm {
            let all = vec4(
                subgroupAdd(squares[0].x), subgroupAdd(squares[0].y), subgroupAdd(squares[0].z), subgroupAdd(squares[0].w),
            );
            shrink = inverseSqrt(all / params.norm_dim + params.eps);
        }
        for (var r = 0u; r < R; r++) {
            part[r] = line_0[r] * shrink;
            if (params.flags & BIAS) != 0u {
                part[r] += bias[min(params.first + first + r, params.first + params.outputs - 1u)];
            }
        }
        for (var m = 0u; m < 4u; m++) {
            let row = x_row + 4u * turn + m;
            for (var r = 0u; r < R; r++) {
                if row >= params.rows || first + r >= params.outputs {
                    continue;
                }
                if (params.flags & SWIGLU) == 0u {
                    store(row, params.first + first + r, part[r][m]);
                } else if r % 2u == 0u {
                    store(row, (params.first + first + r) / 2u, silu_mul(part[r][m], part[(r + 1u) % R][m]));
                }
            }
        }
        enqueue_squares(squares[0]);
        for (var r = 0u; r < R; r++) {
            enqueue(r, line_0[r]);
        }
    }
}
