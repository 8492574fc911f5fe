// Top-k, top-p and the draw over a whole row. After `philox`, `reduce` and `sampling`, beside bindings `logits` and `draws`
// and a function `above`: how much lies at or above a value, tokens or probability.

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

// The ordered bits below which top-k and top-p leave tokens out.
fn cut(base: u32, local: u32, highest: f32) -> u32 {
    var floor = 0u;
    if params.top_k > 0u && params.top_k < params.vocab {
        floor = threshold(base, local, highest, f32(params.top_k), true, 0u);
    }
    if params.top_p < 1.0 {
        let kept = above(base, local, 0u, highest, false, floor);
        floor = max(floor, threshold(base, local, highest, params.top_p * kept, false, floor));
    }
    return floor;
}

// The winner of the draw among tokens from `floor` on.
fn drawn(row: u32, local: u32, floor: u32) -> u32 {
    let base = row * params.vocab;
    let key = vec2(params.seed_low, params.seed_high);
    var value = LOWEST;
    var at = NOBODY;
    for (var quad = local; quad < (params.vocab + 3u) / 4u; quad += WG) {
        let words = philox(vec4(u32(draws[2u * row + 1u]), u32(draws[2u * row]), quad, 1u), key);
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
    return min(largest(local, value, at), params.vocab - 1u);
}
