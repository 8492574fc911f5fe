// The next token of each row: penalties, temperature, top-k, top-p, one draw; and the logarithm of
// its probability under penalties and temperature alone.
//
// The draw is the Gumbel-max trick: the largest of logit / temperature - ln(-ln u) is distributed
// as the softmax. The numbers u depend on seed, sample, position and token, and on nothing before.
// Temperature 0 takes the largest logit, the lowest index on a tie. A `seen` entry counts how
// often its token occurred in the answer; its highest bit says that it occurred in the prompt.
// Dispatch (rows, 1, 1), one row per workgroup. Oracle: globe_engine::Sampling::choose.

#import philox
#import reduce

const LOWEST: f32 = -3.4028234e38;
const IN_PROMPT: u32 = 0x80000000u;
const NOBODY: u32 = 0xffffffffu;

struct Params {
    vocab: u32,
    top_k: u32, // 0: all
    penalized: u32, // 0: `seen` is not read
    seed_low: u32,
    seed_high: u32,
    temperature: f32,
    top_p: f32,
    repetition: f32,
    frequency: f32,
    presence: f32,
}

@group(0) @binding(0) var<storage, read_write> logits: array<f32>;    // [rows, vocab], changed in place
@group(0) @binding(1) var<storage, read_write> seen: array<u32>;      // [rows, vocab]
@group(0) @binding(2) var<storage, read_write> draws: array<i32>;     // [rows, sample + position]
@group(0) @binding(3) var<storage, read_write> tokens: array<i32>;    // [rows]
@group(0) @binding(4) var<storage, read_write> logp: array<f32>;      // [rows]
@group(0) @binding(5) var<uniform> params: Params;

// The lowest index that has the largest value, NOBODY if none has. Indices are exact in f32: a vocabulary
// has fewer than 2^24 tokens.
fn largest(local: u32, value: f32, at: u32) -> u32 {
    let highest = workgroup_max(local, value);
    let lowest = -workgroup_max(local, select(LOWEST, -f32(at), value == highest && at != NOBODY));
    return select(u32(min(lowest, 16777216.0)), NOBODY, lowest >= 16777216.0);
}

// Bits that order as the floats do.
fn ordered(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn penalize(logit: f32, count: u32) -> f32 {
    var value = logit;
    if count != 0u {
        value = select(value * params.repetition, value / params.repetition, value > 0.0);
    }
    let times = count & ~IN_PROMPT;
    if times != 0u {
        value -= f32(times) * params.frequency + params.presence;
    }
    return value;
}

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

// The largest bits for which `above` reaches `enough`: values from there on are kept.
fn threshold(base: u32, local: u32, highest: f32, enough: f32, count_tokens: bool, floor: u32) -> u32 {
    var low = 0u;
    for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
        if above(base, local, low | bit, highest, count_tokens, floor) >= enough {
            low |= bit;
        }
    }
    return low;
}

fn gumbel(word: u32) -> f32 {
    // In (0, 1), never at its ends; it and what it lacks to 1 are exact.
    let u = (f32(word >> 9u) + 0.5) / 8388608.0;
    let lack = (8388607.5 - f32(word >> 9u)) / 8388608.0;
    // Near 1 an adapter may take any logarithm within 2^-21, zero too: that token would always win. The series is exact there.
    let near = lack * (1.0 + lack * (1.0 / 2.0 + lack * (1.0 / 3.0 + lack / 4.0)));
    return -log(select(-log(u), near, lack < 1.0 / 64.0));
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x;
    let base = row * params.vocab;
    let greedy = params.temperature == 0.0;
    let heat = select(1.0 / params.temperature, 1.0, greedy);

    var value = LOWEST;
    var at = NOBODY;
    for (var i = local; i < params.vocab; i += WG) {
        var logit = logits[base + i];
        if params.penalized != 0u {
            logit = penalize(logit, seen[base + i]);
        }
        logit *= heat;
        logits[base + i] = logit;
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
        var floor = 0u;
        if params.top_k > 0u && params.top_k < params.vocab {
            floor = threshold(base, local, highest, f32(params.top_k), true, 0u);
        }
        if params.top_p < 1.0 {
            let kept = above(base, local, 0u, highest, false, floor);
            floor = max(floor, threshold(base, local, highest, params.top_p * kept, false, floor));
        }
        let key = vec2(params.seed_low, params.seed_high);
        value = LOWEST;
        at = NOBODY;
        for (var quad = local; quad < (params.vocab + 3u) / 4u; quad += WG) {
            let counter = vec4(u32(draws[2u * row + 1u]), u32(draws[2u * row]), quad, 1u);
            let words = philox(counter, key);
            for (var j = 0u; j < 4u; j++) {
                let i = 4u * quad + j;
                if i < params.vocab && ordered(logits[base + i]) >= floor {
                    let noisy = logits[base + i] + gumbel(words[j]);
                    if noisy > value {
                        value = noisy;
                        at = i;
                    }
                }
            }
        }
        token = min(largest(local, value, at), params.vocab - 1u);
    }
    if local == 0u {
        tokens[row] = i32(token);
        logp[row] = logits[base + token] - highest - log(total);
    }
}
