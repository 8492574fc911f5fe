// A logit under penalties and temperature. After `sampling`, beside bindings `logits` and `seen`.

// That at a place, which it takes from now on.
fn heated(at: u32) -> f32 {
    var logit = logits[at];
    if params.penalized != 0u {
        logit = penalize(logit, seen[at]);
    }
    logit *= select(1.0 / params.temperature, 1.0, params.temperature == 0.0);
    logits[at] = logit;
    return logit;
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
