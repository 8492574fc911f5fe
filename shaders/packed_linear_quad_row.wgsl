// y = norm(x) weight^T + bias for one row of x in subgroups of four: for software adapters, where every load of a
// lane is a load of its own, and nothing is unrolled or kept in registers that is not written out.
//
// Each lane computes four outputs. It loads two of the eight quads of a block of x for all lanes, so that no number of x
// is loaded twice; quads that lane ^ m loaded meet the weights at their place. With SWIGLU, outputs come in pairs (gate,
// up) and y = silu(gate) * up. `x` has whole blocks, zeros past its width; a norm is a kernel of its own.
// Dispatch (1, ceil(outputs / 16) folded over y and z): group = z * groups_y + y.
// Needs subgroups of exactly 4. Oracle: globe_ops::packed_linear, default body. More rows: packed_linear_quads.wgsl.

#import packed
#import weights
#import eights
#import four_lanes

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
    norm_dim: f32, // not read
    eps: f32, // not read
}

@group(0) @binding(0) var<storage, read_write> words: array<u32>;           // [outputs, blocks, 4, VECS]
@group(0) @binding(1) var<storage, read_write> scales: array<u32>;          // [outputs, scale_words] pairs of f16
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;         // [blocks, 8]
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;            // [all outputs]
@group(0) @binding(4) var<storage, read_write> residual: array<f32>;        // as y
@group(0) @binding(5) var<storage, read_write> y: array<f32>;               // [all outputs], half of them with SWIGLU
@group(0) @binding(6) var<uniform> params: Params;

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

// The same eight weights of four outputs, times inputs.
fn eight_dots(at: vec4<u32>, x: vec4<f32>, next: vec4<f32>) -> vec4<f32> {
    return vec4(
        eight_dot(eight_words(at.x), x, next), eight_dot(eight_words(at.y), x, next),
        eight_dot(eight_words(at.z), x, next), eight_dot(eight_words(at.w), x, next),
    );
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
    var pairs = vec4<u32>(); // scales of two blocks
    for (var b = 0u; b < params.blocks; b++) {
        let quad = 8u * b + 2u * lane;
        let mine = x[quad];
        let next = x[quad + 1u];
        let even = of_lanes(mine * PLACES);
        let odd = of_lanes(next * PLACES);
        let at = 4u * (block_row + b);
        var dots = eight_dots(at + lane, even[0], odd[0]) + eight_dots(at + (lane ^ 1u), even[1], odd[1]);
        dots += eight_dots(at + (lane ^ 2u), even[2], odd[2]) + eight_dots(at + (lane ^ 3u), even[3], odd[3]);
        if EXCESS != 0.0 {
            dots -= lanes_sum(dot(mine + next, vec4(EXCESS)));
        }
        if SCALED {
            if b % 2u == 0u {
                let scale_at = scale_row + b / 2u;
                pairs = vec4(scales[scale_at.x], scales[scale_at.y], scales[scale_at.z], scales[scale_at.w]);
            }
            dots *= vec4(
                block_scale(pairs.x, b), block_scale(pairs.y, b), block_scale(pairs.z, b), block_scale(pairs.w, b),
            );
        }
        sums += dots;
    }

    if (params.flags & BIAS) != 0u {
        let at = params.first + weight_row;
        sums += vec4(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
    }
    finish(outputs, sums);
}
