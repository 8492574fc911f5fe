// y = x weight^T + bias for one row of x in subgroups of four: for software adapters, where every load of a
// lane is a load of its own, and nothing is unrolled or kept in registers that is not written out.
//
// Each lane computes four outputs. It loads two of the eight quads of a block of x for all lanes, so that no number of x
// is loaded twice; quads that lane ^ m loaded meet the weights at their place. With SWIGLU, outputs come in pairs (gate,
// up) and y = silu(gate) * up. `x` has whole blocks, zeros past its width.
// Dispatch (1, ceil(outputs / 16) folded over y and z): group = z * groups_y + y.
// Needs subgroups of exactly 4. Oracle: globe_ops::packed_linear, default body. More rows: packed_linear_quads.wgsl.

#import packed
#import weights
#import eights
#import scales
#import four_lanes
#import norm

const LANES: u32 = 4u;
const OUTPUTS: u32 = 16u; // of a workgroup

struct Params {
    rows: u32, // 1
    blocks: u32, // of 32 inputs
    outputs: u32, // rows of this part of the weight
    scale_words: u32, // u32 per row of scales
    y_stride: u32, // not read
    first: u32, // output of the first row of this part
    flags: u32,
    groups_y: u32,
    norm_dim: f32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read_write> words: array<Words>;         // [outputs, blocks]
@group(0) @binding(1) var<storage, read_write> scales: array<u32>;          // [outputs, scale_words] pairs of f16
@group(0) @binding(2) var<storage, read_write> x: array<array<vec4<f32>, 8>>; // [blocks]
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;            // [all outputs]
@group(0) @binding(4) var<storage, read_write> residual: array<f32>;        // as y
@group(0) @binding(5) var<storage, read_write> y: array<f32>;               // [all outputs], half of them with SWIGLU

fn store(output: u32, value: f32) {
    var sum = value;
    if (params.flags & RESIDUAL) != 0u {
        sum += residual[output];
    }
    y[output] = sum;
}

fn finish(outputs: vec4<u32>, sums: vec4<f32>) {
    let within = outputs < vec4(params.outputs);
    let places = params.first + outputs;
    if (params.flags & SWIGLU) != 0u {
        if within.x {
            store(places.x / 2u, silu_mul(sums.x, sums.y));
        }
        if within.z {
            store(places.z / 2u, silu_mul(sums.z, sums.w));
        }
        return;
    }
    if within.x {
        store(places.x, sums.x);
    }
    if within.y {
        store(places.y, sums.y);
    }
    if within.z {
        store(places.z, sums.z);
    }
    if within.w {
        store(places.w, sums.w);
    }
}

// A block of four outputs times inputs, before its scales.
fn block_dots(at: vec4<u32>, b: u32, lane: u32, inputs: mat2x4<f32>) -> vec4<f32> {
    let by = norm_weights(b, 2u * lane);
    let mine = inputs[0] * by[0];
    let next = inputs[1] * by[1];
    let even = of_lanes(mine * PLACES);
    let odd = of_lanes(next * PLACES);
    let dots = vec4(
        block_dot(at.x, lane, even, odd), block_dot(at.y, lane, even, odd),
        block_dot(at.z, lane, even, odd), block_dot(at.w, lane, even, odd),
    );
    return dots - lanes_sum(dot(mine + next, vec4(EXCESS)));
}

// Two quads of a block.
fn inputs_at(b: u32, lane: u32) -> mat2x4<f32> {
    let block = &x[b];
    return mat2x4((*block)[2u * lane], (*block)[2u * lane + 1u]);
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // Neighbours store side by side; both outputs of a pair are in one lane.
    let is_pair = (params.flags & SWIGLU) != 0u;
    let places = select(lane + vec4(0u, 4u, 8u, 12u), 2u * lane + vec4(0u, 1u, 8u, 9u), is_pair);
    let outputs = (group.z * params.groups_y + group.y) * OUTPUTS + places;
    let weight_row = min(outputs, vec4(params.outputs - 1u));
    let block_row = weight_row * params.blocks;
    let scale_row = weight_row * params.scale_words;

    var sums = vec4<f32>();
    var sum_of_squares = 0.0;
    for (var b = 0u; b < params.blocks; b += 2u) {
        let pairs = scales_at(scale_row + b / 2u);
        let inputs = inputs_at(b, lane);
        sum_of_squares += squares(inputs[0]) + squares(inputs[1]);
        sums += block_dots(block_row + b, b, lane, inputs) * scales_of(pairs, 0u);
        // Where the last one has no neighbour, it is found again, and counts nothing.
        let next = min(b + 1u, params.blocks - 1u);
        let counts = f32(next - b);
        let next_inputs = inputs_at(next, lane);
        sum_of_squares += (squares(next_inputs[0]) + squares(next_inputs[1])) * counts;
        sums += block_dots(block_row + next, next, lane, next_inputs) * (scales_of(pairs, 1u) * counts);
    }
    sums *= one_over_root(lanes_sum(sum_of_squares));

    if (params.flags & BIAS) != 0u {
        let at = params.first + weight_row;
        sums += vec4(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
    }
    finish(outputs, sums);
}
