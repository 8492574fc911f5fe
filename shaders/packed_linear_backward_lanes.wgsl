// dx = dy weight, the gradient of the input of packed_linear, for adapters whose loads are dear. Every lane of
// a subgroup of 8 has R rows of dy and the 32 inputs of one block; it unpacks the block of one output, and the
// others get it by broadcast.
//
// cols is a multiple of 4.
// Dispatch (blocks, ceil(rows / (32 R)), 1). With ADD, dx holds the sum over earlier parts.
// Oracle: globe_ops::packed_linear_backward, default body.

#import packed
#import weights

const R: u32 = 2u; // rows per lane
const LANES: u32 = 8u;
const WG: u32 = 32u;
const QUADS: u32 = 8u; // vec4 of a block
const ADD: u32 = 16u;

struct Params {
    rows: u32,
    blocks: u32, // of 32 inputs
    outputs: u32, // rows of this part of the weight
    scale_words: u32, // u32 per row of scales
    cols: u32, // of dx: the inputs without those that fill the last block
    dy_stride: u32,
    first: u32, // output of the first row of this part
    flags: u32,
}

@group(0) @binding(0) var<storage, read_write> words: array<vec4<u32>>;     // [outputs, blocks, VECS]
@group(0) @binding(1) var<storage, read_write> scales: array<u32>;          // [outputs, scale_words] pairs of f16
@group(0) @binding(2) var<storage, read_write> dy: array<f32>;              // [rows, dy_stride]
@group(0) @binding(3) var<storage, read_write> residual: array<vec4<f32>>;  // as dx
@group(0) @binding(4) var<storage, read_write> dx: array<vec4<f32>>;        // [rows, cols / 4]
@group(0) @binding(5) var<uniform> params: Params;

// The block of one output; zeros past the last.
fn unpacked(output: u32, b: u32) -> array<vec4<f32>, QUADS> {
    let row = min(output, params.outputs - 1u);
    var block = Block();
    for (var i = 0u; i < VECS; i++) {
        block[i] = words[(row * params.blocks + b) * VECS + i];
    }
    var scale = f32(output < params.outputs);
    if SCALED {
        scale *= block_scale(scales[row * params.scale_words + b / 2u], b);
    }
    var w = array<vec4<f32>, QUADS>();
    for (var k = 0u; k < QUADS; k++) {
        w[k] = values(block, k) * scale;
    }
    return w;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let row_0 = (group.y * WG + local) * R;
    let b = group.x;
    let last = params.outputs - 1u;
    var dy_row = array<u32, R>();
    for (var r = 0u; r < R; r++) {
        let row = min(row_0 + r, params.rows - 1u);
        dy_row[r] = row * params.dy_stride + params.first;
    }

    var sums = array<vec4<f32>, R * QUADS>(); // [row][input]
    for (var o = 0u; o < params.outputs; o += LANES) {
        let w = unpacked(o + lane, b);
        var g = array<vec4<f32>, 2u * R>();
        for (var r = 0u; r < R; r++) {
            for (var j = 0u; j < LANES; j++) {
                g[2u * r + j / 4u][j % 4u] = dy[dy_row[r] + min(o + j, last)];
            }
        }
        for (var k = 0u; k < QUADS; k++) {
            let w_0 = subgroupBroadcast(w[k], 0u);
            let w_1 = subgroupBroadcast(w[k], 1u);
            let w_2 = subgroupBroadcast(w[k], 2u);
            let w_3 = subgroupBroadcast(w[k], 3u);
            let w_4 = subgroupBroadcast(w[k], 4u);
            let w_5 = subgroupBroadcast(w[k], 5u);
            let w_6 = subgroupBroadcast(w[k], 6u);
            let w_7 = subgroupBroadcast(w[k], 7u);
            for (var r = 0u; r < R; r++) {
                let g_0 = g[2u * r];
                let g_1 = g[2u * r + 1u];
                sums[r * QUADS + k] += g_0.x * w_0 + g_0.y * w_1 + g_0.z * w_2 + g_0.w * w_3
                    + g_1.x * w_4 + g_1.y * w_5 + g_1.z * w_6 + g_1.w * w_7;
            }
        }
    }

    for (var r = 0u; r < R; r++) {
        for (var k = 0u; k < QUADS; k++) {
            let row = row_0 + r;
            let input = b * QUADS + k;
            if row >= params.rows || input >= params.cols / 4u {
                continue;
            }
            let to = row * (params.cols / 4u) + input;
            var sum = sums[r * QUADS + k];
            if (params.flags & RESIDUAL) != 0u {
                sum += residual[to];
            }
            if (params.flags & ADD) != 0u {
                sum += dx[to];
            }
            dx[to] = sum;
        }
    }
}
