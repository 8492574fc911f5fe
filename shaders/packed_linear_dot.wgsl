// y = norm(x) weight^T + bias with x rounded to 8 bits: products of four pairs of 8-bit numbers are one
// instruction, or become several where the driver lacks it.
//
// Each block of 32 inputs, multiplied by `norm`, is divided by its largest magnitude, times 127, and rounded; the
// integers wait in workgroup memory, and each invocation computes one output from them. Weights of 4 and
// 8 bits are integers already. With SWIGLU, outputs come in pairs (gate, up) and y = silu(gate) * up.
// Dispatch (rows, ceil(outputs / 64) folded over y and z): group = z * groups_y + y.
// Oracle: globe_ops::packed_linear, default body, which rounds alike.

#import packed
#import integers

const WG: u32 = 64u;
const BLOCKS: u32 = 64u; // of 32 inputs that are rounded at a time, one per invocation

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

var<workgroup> rounded: array<vec4<u32>, 2u * BLOCKS>; // 32 integers per block
var<workgroup> steps: array<f32, BLOCKS>; // what an integer counts
var<workgroup> shared_values: array<f32, WG>; // sums of squares, then outputs

// Rounds one block of the row and returns the sum of its squares.
fn round_block(row: u32, b: u32, to: u32) -> f32 {
    var values = array<vec4<f32>, 8>();
    var sum_sq = 0.0;
    var largest = vec4(0.0);
    for (var i = 0u; i < 8u; i++) {
        values[i] = x[(row * params.blocks + b) * 8u + i];
        sum_sq += dot(values[i], values[i]);
        if (params.flags & NORM) != 0u {
            values[i] *= norm[b * 8u + i];
        }
        largest = max(largest, abs(values[i]));
    }
    let most = max(max(largest.x, largest.y), max(largest.z, largest.w));
    let per_step = select(0.0, 127.0 / most, most > 0.0);
    steps[to] = most / 127.0;
    for (var half = 0u; half < 2u; half++) {
        var packed = vec4<u32>();
        for (var i = 0u; i < 4u; i++) {
            packed[i] = pack4xI8(vec4<i32>(round(values[4u * half + i] * per_step)));
        }
        rounded[2u * to + half] = packed;
    }
    return sum_sq;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x;
    let output = (group.z * params.groups_y + group.y) * WG + local;
    let weight_row = min(output, params.outputs - 1u);

    var total = 0.0;
    var sum_sq = 0.0;
    for (var start = 0u; start < params.blocks; start += BLOCKS) {
        workgroupBarrier();
        if start + local < params.blocks {
            sum_sq += round_block(row, start + local, local);
        }
        workgroupBarrier();
        for (var j = 0u; j < min(BLOCKS, params.blocks - start); j++) {
            let b = start + j;
            var block = Block();
            for (var i = 0u; i < VECS; i++) {
                block[i] = words[(weight_row * params.blocks + b) * VECS + i];
            }
            let product = block_dot(block, rounded[2u * j], rounded[2u * j + 1u]);
            let scale = block_scale(scales[weight_row * params.scale_words + b / 2u], b);
            total += f32(product) * (scale * steps[j]);
        }
    }
    if (params.flags & NORM) != 0u {
        shared_values[local] = sum_sq;
        workgroupBarrier();
        var all = 0.0;
        for (var i = 0u; i < WG; i++) {
            all += shared_values[i];
        }
        workgroupBarrier();
        total *= inverseSqrt(all / params.norm_dim + params.eps);
    }
    if (params.flags & BIAS) != 0u {
        total += bias[params.first + weight_row];
    }

    // The other half of a pair is the neighbour's.
    shared_values[local] = total;
    workgroupBarrier();
    var column = params.first + output;
    var is_stored = output < params.outputs;
    if (params.flags & SWIGLU) != 0u {
        total = silu_mul(total, shared_values[(local + 1u) % WG]);
        column /= 2u;
        is_stored = is_stored && local % 2u == 0u;
    }
    if is_stored {
        let at = row * params.y_stride + column;
        if (params.flags & RESIDUAL) != 0u {
            total += residual[at];
        }
        y[at] = total;
    }
}
