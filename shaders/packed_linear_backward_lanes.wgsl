// dx = dy weight, the gradient of the input of packed_linear, for adapters whose loads are dear: a tile
// of 64 rows by 64 inputs per workgroup, 8 rows by 4 inputs per invocation. 32 outputs of the weight are
// unpacked into workgroup memory at a time; each lane of a subgroup of 8 loads one row of dy, four
// outputs at once, and the others get it by broadcast.
//
// dy_stride, cols, first and outputs are multiples of 4.
// Dispatch (ceil(blocks / 2), ceil(rows / 64), 1). With ADD, dx holds the sum over earlier parts.
// Oracle: globe_ops::packed_linear_backward, default body.

#import packed
#import weights

const TILE: u32 = 64u;
const QUADS: u32 = 16u; // vec4 along a side of the tile
const DEPTH: u32 = 32u; // outputs at a time
const ROWS: u32 = 8u; // rows of an invocation, and lanes of a subgroup
const WG: u32 = 128u;
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
@group(0) @binding(2) var<storage, read_write> dy: array<vec4<f32>>;        // [rows, dy_stride / 4]
@group(0) @binding(3) var<storage, read_write> residual: array<vec4<f32>>;  // as dx
@group(0) @binding(4) var<storage, read_write> dx: array<vec4<f32>>;        // [rows, cols / 4]
@group(0) @binding(5) var<uniform> params: Params;

var<workgroup> weight_tile: array<vec4<f32>, DEPTH * QUADS>; // [output][input]

// Half a block of the weight per invocation; zeros past the last output.
fn load_weight(local: u32, group: u32, o: u32) {
    let block_out = local / 4u;
    let side = local / 2u % 2u; // which of the two blocks
    let b = min(group * 2u + side, params.blocks - 1u);
    let output = o + block_out;
    let row = min(output, params.outputs - 1u);
    var block = Block();
    for (var i = 0u; i < VECS; i++) {
        block[i] = words[(row * params.blocks + b) * VECS + i];
    }
    var scale = f32(output < params.outputs);
    if SCALED {
        scale *= block_scale(scales[row * params.scale_words + b / 2u], b);
    }
    for (var i = 0u; i < 4u; i++) {
        let k = local % 2u * 4u + i;
        weight_tile[block_out * QUADS + side * 8u + k] = values(block, k) * scale;
    }
}

// One output: `value` is the gradient that this lane has loaded, of its row.
fn add_output(sums: ptr<function, array<vec4<f32>, ROWS>>, value: f32, w: vec4<f32>) {
    (*sums)[0] += subgroupBroadcast(value, 0u) * w;
    (*sums)[1] += subgroupBroadcast(value, 1u) * w;
    (*sums)[2] += subgroupBroadcast(value, 2u) * w;
    (*sums)[3] += subgroupBroadcast(value, 3u) * w;
    (*sums)[4] += subgroupBroadcast(value, 4u) * w;
    (*sums)[5] += subgroupBroadcast(value, 5u) * w;
    (*sums)[6] += subgroupBroadcast(value, 6u) * w;
    (*sums)[7] += subgroupBroadcast(value, 7u) * w;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let tx = local % QUADS;
    let row_0 = group.y * TILE + local / QUADS * ROWS;
    let my_row = min(row_0 + lane, params.rows - 1u) * (params.dy_stride / 4u) + params.first / 4u;
    let last = params.outputs / 4u - 1u;

    var sums = array<vec4<f32>, ROWS>();
    for (var o = 0u; o < params.outputs; o += DEPTH) {
        load_weight(local, group.x, o);
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d += 4u) {
            let g = dy[my_row + min((o + d) / 4u, last)];
            let at = d * QUADS + tx;
            add_output(&sums, g.x, weight_tile[at]);
            add_output(&sums, g.y, weight_tile[at + QUADS]);
            add_output(&sums, g.z, weight_tile[at + 2u * QUADS]);
            add_output(&sums, g.w, weight_tile[at + 3u * QUADS]);
        }
        workgroupBarrier();
    }

    let input = group.x * QUADS + tx;
    for (var j = 0u; j < ROWS; j++) {
        let row = row_0 + j;
        if row >= params.rows || input >= params.cols / 4u {
            continue;
        }
        let to = row * (params.cols / 4u) + input;
        var sum = sums[j];
        if (params.flags & RESIDUAL) != 0u {
            sum += residual[to];
        }
        if (params.flags & ADD) != 0u {
            sum += dx[to];
        }
        dx[to] = sum;
    }
}
