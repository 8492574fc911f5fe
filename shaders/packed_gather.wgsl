// y[row] = weight[ids[row]], unpacked: the embedding lookup.
//
// Dispatch (x, y, 1) over rows * blocks * 8 quads, `stride` = 256 * x. A part of a table skips ids
// outside its rows; all parts together must hold every id.
// Oracle: globe_ops::packed_gather, default body.

#import packed
#import weights

const WG: u32 = 256u;

struct Params {
    rows: u32,
    blocks: u32, // of 32 values
    part_rows: u32, // rows of this part of the table
    scale_words: u32, // u32 per row of scales
    dim: u32,
    first: u32, // first row of this part
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> words: array<vec4<u32>>;     // [part_rows, blocks, VECS]
@group(0) @binding(1) var<storage, read_write> scales: array<u32>;          // [part_rows, scale_words]
@group(0) @binding(2) var<storage, read_write> ids: array<i32>;             // [rows]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;               // [rows, dim]
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * params.stride + id.x;
    let row = i / (8u * params.blocks);
    if row >= params.rows {
        return;
    }
    let source = u32(ids[row]) - params.first; // before this part it becomes huge
    if source >= params.part_rows {
        return;
    }
    let b = i / 8u % params.blocks;
    let k = i % 8u;
    var block = Block();
    for (var v = 0u; v < VECS; v++) {
        block[v] = words[(source * params.blocks + b) * VECS + v];
    }
    var scale = 1.0;
    if SCALED {
        scale = block_scale(scales[source * params.scale_words + b / 2u], b);
    }
    let four = values(block, k) * scale;
    for (var j = 0u; j < 4u; j++) {
        let d = b * 32u + 4u * k + j;
        if d < params.dim {
            y[row * params.dim + d] = four[j];
        }
    }
}
