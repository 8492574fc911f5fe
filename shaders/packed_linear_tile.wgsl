// y = x weight^T + bias, a 64 x 64 tile per workgroup, 4 x 4 outputs per invocation; weights are
// unpacked into workgroup memory, half a block of 32 inputs at a time. Factors have 32 or 16 bits there,
// sums have 32.
//
// With SWIGLU, outputs come in pairs (gate, up) and y = silu(gate) * up.
// `x` has whole blocks, zeros past its width.
// Dispatch (ceil(outputs / 64), ceil(rows / 64), 1).
// Oracle: globe_ops::packed_linear, default body. Few rows: packed_linear_few.wgsl.

#import packed
#import weights
#import stage

const TILE: u32 = 64u;
const QUADS: u32 = 16u; // vec4 along a side of the tile
const DEPTH: u32 = 16u; // inputs at a time: half a block, because a browser zeroes the tiles for every workgroup

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

var<workgroup> x_tile: array<Factors, DEPTH * QUADS>; // [input][row]
var<workgroup> weight_tile: array<Factors, DEPTH * QUADS>; // [input][output]

// Four inputs of one row or output, spread over four lines of a tile.
fn put_x(k: u32, at: u32, v: Factors) {
    for (var i = 0u; i < 4u; i++) {
        x_tile[(4u * k + i) * QUADS + at / 4u][at % 4u] = v[i];
    }
}

fn put_weight(k: u32, at: u32, v: Factors) {
    for (var i = 0u; i < 4u; i++) {
        weight_tile[(4u * k + i) * QUADS + at / 4u][at % 4u] = v[i];
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

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let output_0 = group.x * TILE;
    let row_0 = group.y * TILE;
    // Loading: one row and one output per invocation, a quad of inputs of each.
    let mine = local % TILE;
    let quad = local / TILE;
    let x_row = min(row_0 + mine, params.rows - 1u);
    let weight_row = min(output_0 + mine, params.outputs - 1u);
    // Computing: four rows by four outputs.
    let tx = local % QUADS;
    let ty = local / QUADS;

    var sums = array<vec4<f32>, 4>(); // [row][output]
    for (var b = 0u; b < params.blocks; b++) {
        var block = Block();
        for (var i = 0u; i < VECS; i++) {
            block[i] = words[(weight_row * params.blocks + b) * VECS + i];
        }
        var scale = 1.0;
        if SCALED {
            scale = block_scale(scales[weight_row * params.scale_words + b / 2u], b);
        }
        for (var half = 0u; half < 8u; half += 4u) {
            let k = half + quad;
            put_x(quad, mine, staged_x(x[(x_row * params.blocks + b) * 8u + k]));
            put_weight(quad, mine, staged_weight(values(block, k) * scale));
            workgroupBarrier();
            for (var d = 0u; d < DEPTH; d++) {
                let w = vec4<f32>(weight_tile[d * QUADS + tx]);
                let a = vec4<f32>(x_tile[d * QUADS + ty]);
                sums[0] += a.x * w;
                sums[1] += a.y * w;
                sums[2] += a.z * w;
                sums[3] += a.w * w;
            }
            workgroupBarrier();
        }
    }

    for (var j = 0u; j < 4u; j++) {
        let row = row_0 + ty * 4u + j;
        let output = output_0 + tx * 4u;
        var sum = sums[j];
        if (params.flags & BIAS) != 0u {
            for (var c = 0u; c < 4u; c++) {
                sum[c] += bias[params.first + min(output + c, params.outputs - 1u)];
            }
        }
        let is_pair = (params.flags & SWIGLU) != 0u;
        for (var c = 0u; c < 4u; c++) {
            if row >= params.rows || output + c >= params.outputs {
                continue;
            }
            if !is_pair {
                store(row, params.first + output + c, sum[c]);
            } else if c % 2u == 0u {
                let gate = sum[c];
                let up = sum[(c + 1u) % 4u];
                store(row, (params.first + output + c) / 2u, silu_mul(gate, up));
            }
        }
    }
}
