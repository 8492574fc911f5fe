// What choosing a token is made of. After `reduce`, beside a binding `params`.

const LOWEST: f32 = -3.4028234e38;
const IN_PROMPT: u32 = 0x80000000u;
const NOBODY: u32 = 0xffffffffu;
const PART: u32 = 4096u; // tokens of the vocabulary, where many workgroups share a row

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

// Of a row's vocabulary.
fn parts() -> u32 {
    return (params.vocab + PART - 1u) / PART;
}

// Whether top-k or top-p may leave tokens out.
fn is_cut() -> bool {
    return (params.top_k > 0u && params.top_k < params.vocab) || params.top_p < 1.0;
}

fn gumbel(word: u32) -> f32 {
    // In (0, 1), never at its ends; it and what it lacks to 1 are exact.
    let u = (f32(word >> 9u) + 0.5) / 8388608.0;
    let lack = (8388607.5 - f32(word >> 9u)) / 8388608.0;
    // Near 1 an adapter may take any logarithm within 2^-21, zero too: that token would always win. The series is exact there.
    let near = lack * (1.0 + lack * (1.0 / 2.0 + lack * (1.0 / 3.0 + lack / 4.0)));
    return -log(select(-log(u), near, lack < 1.0 / 64.0));
}
