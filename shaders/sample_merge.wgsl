// The second half of sample.wgsl, after sample_parts.wgsl: the next token of each row and the logarithm of its probability,
// from what was found in each part of the vocabulary; top-k and top-p, which concern all of it, and their draw.
//
// Dispatch (rows, 1, 1), one row per workgroup. Oracle: globe_engine::Sampling::choose.

#import philox
#import reduce_wide
#import sampling
#import sampling_cut

const AT_ONCE: u32 = 4u; // loads of an invocation that do not wait for each other

@group(0) @binding(0) var<storage, read_write> logits: array<f32>;     // [rows, vocab], penalized and heated
@group(0) @binding(1) var<storage, read_write> draws: array<i32>;      // [rows, sample + position]
@group(0) @binding(2) var<storage, read_write> found: array<vec4<f32>>; // [rows, parts, 2] as in sample_parts.wgsl
@group(0) @binding(3) var<storage, read_write> tokens: array<i32>;     // [rows]
@group(0) @binding(4) var<storage, read_write> logp: array<f32>;       // [rows]
@group(0) @binding(5) var<uniform> params: Params;

// How much lies at or above the value with these ordered bits: tokens, or probability.
fn above(base: u32, local: u32, bits: u32, highest: f32, count_tokens: bool, floor: u32) -> f32 {
    let least = max(bits, floor);
    var sums = vec4<f32>();
    for (var i = local; i < params.vocab; i += AT_ONCE * WG) {
        let places = i + WG * vec4(0u, 1u, 2u, 3u);
        let within = places < vec4(params.vocab);
        let at = base + min(places, vec4(params.vocab - 1u));
        let four = vec4(logits[at.x], logits[at.y], logits[at.z], logits[at.w]);
        let orders = vec4(ordered(four.x), ordered(four.y), ordered(four.z), ordered(four.w));
        let weights = select(exp(four - highest), vec4(1.0), vec4(count_tokens));
        sums += select(vec4(0.0), weights, within & (orders >= vec4(least)));
    }
    return workgroup_sum(local, (sums.x + sums.y) + (sums.z + sums.w));
}

// Of all parts the token whose value is the largest, in one of the two places of a part.
fn best(row: u32, local: u32, place: u32) -> u32 {
    var value = LOWEST;
    var at = NOBODY;
    for (var part = local; part < parts(); part += WG) {
        let one = found[2u * (row * parts() + part) + place];
        if one.x > value && one.y < 16777216.0 {
            value = one.x;
            at = u32(one.y);
        }
    }
    return largest(local, value, at);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x;
    let base = row * params.vocab;
    var token = min(best(row, local, 0u), params.vocab - 1u);
    let highest = logits[base + token];
    var sum = 0.0;
    for (var part = local; part < parts(); part += WG) {
        let one = found[2u * (row * parts() + part)];
        sum += one.z * exp(one.x - highest);
    }
    let total = workgroup_sum(local, sum);
    if params.temperature > 0.0 {
        if is_cut() {
            token = drawn(row, local, cut(base, local, highest));
        } else {
            token = min(best(row, local, 1u), params.vocab - 1u);
        }
    }
    if local == 0u {
        tokens[row] = i32(token);
        logp[row] = logits[base + token] - highest - log(total);
    }
}
