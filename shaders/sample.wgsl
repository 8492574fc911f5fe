// The next token of each row: penalties, temperature, top-k, top-p, one draw; and the logarithm of
// its probability under penalties and temperature alone.
//
// The draw is the Gumbel-max trick: the largest of logit / temperature - ln(-ln u) is distributed
// as the softmax. The numbers u depend on seed, sample, position and token, and on nothing before.
// Temperature 0 takes the largest logit, the lowest index on a tie. A `seen` entry counts how
// often its token occurred in the answer; its highest bit says that it occurred in the prompt.
// Dispatch (rows, 1, 1), one row per workgroup: for software adapters. Others: sample_parts.wgsl, then sample_merge.wgsl.
// Oracle: globe_engine::Sampling::choose.

#import philox
#import reduce
#import sampling
#import sampling_heat
#import sampling_cut

@group(0) @binding(0) var<storage, read_write> logits: array<f32>;    // [rows, vocab], changed in place
@group(0) @binding(1) var<storage, read_write> seen: array<u32>;      // [rows, vocab]
@group(0) @binding(2) var<storage, read_write> draws: array<i32>;     // [rows, sample + position]
@group(0) @binding(3) var<storage, read_write> tokens: array<i32>;    // [rows]
@group(0) @binding(4) var<storage, read_write> logp: array<f32>;      // [rows]
@group(0) @binding(5) var<uniform> params: Params;

// How much lies at or above the value with these ordered bits: tokens, or probability.
fn above(base: u32, local: u32, bits: u32, highest: f32, count_tokens: bool, floor: u32) -> f32 {
    var sum = 0.0;
    for (var i = local; i < params.vocab; i += WG) {
        let value = logits[base + i];
        let mine = ordered(value);
        if mine >= bits && mine >= floor {
            sum += select(exp(value - highest), 1.0, count_tokens);
        }
    }
    return workgroup_sum(local, sum);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x;
    let base = row * params.vocab;
    let greedy = params.temperature == 0.0;

    var value = LOWEST;
    var at = NOBODY;
    for (var i = local; i < params.vocab; i += WG) {
        let logit = heated(base + i);
        if logit > value {
            value = logit;
            at = i;
        }
    }
    var token = largest(local, value, at);
    storageBarrier();
    token = min(token, params.vocab - 1u);
    let highest = logits[base + token];

    var sum = 0.0;
    for (var i = local; i < params.vocab; i += WG) {
        sum += exp(logits[base + i] - highest);
    }
    let total = workgroup_sum(local, sum);

    if !greedy {
        token = drawn(row, local, cut(base, local, highest));
    }
    if local == 0u {
        tokens[row] = i32(token);
        logp[row] = logits[base + token] - highest - log(total);
    }
}
