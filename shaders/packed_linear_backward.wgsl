// dx = dy weight, the gradient of the input of packed_linear: a 64 x 64 tile per workgroup, 4 x 4
// values per invocation; 32 outputs of the weight are unpacked into workgroup memory at a time.
//
// Dispatch (ceil(blocks / 2), ceil(rows / 64), 1). With ADD, dx holds the sum over earlier parts.
// Oracle: globe_ops::packed_linear_backward, default body.

#import packed
#import weights

const TILE: u32 = 64u;
const QUADS: u32 = 16u; // vec4 along a side of the tile
const DEPTH: u32 = 32u; // outputs at a time
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
@group(0) @binding(3) var<storage, read_write> residual: array<f32>;        // as dx
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;              // [rows, cols]
@group(0) @binding(5) var<uniform> params: Params;

var<workgroup> dy_tile: array<vec4<f32>, DEPTH * QUADS>; // [output][row]
var<workgroup> weight_tile: array<vec4<f32>, DEPTH * QUADS>; // [output][input]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row_0 = group.y * TILE;
    let input_0 = group.x * TILE;
    // Loading: a quarter of one block of the weight, and eight values of dy of one row.
    let block_out = local / 8u;
    let b = min(group.x * 2u + (local / 4u) % 2u, params.blocks - 1u);
    let part = local % 4u;
    let mine = local % TILE;
    let dy_row = min(row_0 + mine, params.rows - 1u) * params.dy_stride + params.first;
    // Computing: four rows by four inputs.
    let tx = local % QUADS;
    let ty = local / QUADS;

    var sums = array<vec4<f32>, 4>(); // [row][input]
    for (var o = 0u; o < params.outputs; o += DEPTH) {
        let output = o + block_out;
        let weight_row = min(output, params.outputs - 1u);
        var block = Block();
        for (var i = 0u; i < VECS; i++) {
            block[i] = words[(weight_row * params.blocks + b) * VECS + i];
        }
        var scale = f32(output < params.outputs);
        if SCALED {
            scale *= block_scale(scales[weight_row * params.scale_words + b / 2u], b);
        }
        let at = block_out * QUADS + ((local / 4u) % 2u) * 8u;
        weight_tile[at + part] = values(block, part) * scale;
        weight_tile[at + part + 4u] = values(block, part + 4u) * scale;
        for (var i = local / TILE; i < DEPTH; i += 4u) {
            let source = min(o + i, params.outputs - 1u);
            dy_tile[i * QUADS + mine / 4u][mine % 4u] = dy[dy_row + source];
        }
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d++) {
            let w = weight_tile[d * QUADS + tx];
            let a = dy_tile[d * QUADS + ty];
            sums[0] += a.x * w;
            sums[1] += a.y * w;
            sums[2] += a.z * w;
            sums[3] += a.w * w;
        }
        workgroupBarrier();
    }

    for (var j = 0u; j < 4u; j++) {
        let row = row_0 + ty * 4u + j;
        for (var c = 0u; c < 4u; c++) {
            let input = input_0 + tx * 4u + c;
            if row >= params.rows || input >= params.cols {
                continue;
            }
            let to = row * params.cols + input;
            var sum = sums[j][c];
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
