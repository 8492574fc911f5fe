// Subgroups of exactly four. Software adapters swap lanes by one instruction; a broadcast takes them twenty.

// What the four lanes have: column m is that of lane ^ m.
fn of_lanes(mine: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(mine, quadSwapX(mine), quadSwapY(mine), quadSwapDiagonal(mine));
}

// What came from lane ^ m as component m, by lanes.
fn in_order(lane: u32, swapped: vec4<f32>) -> vec4<f32> {
    let pairs = select(swapped, swapped.yxwz, (lane & 1u) != 0u);
    return select(pairs, pairs.zwxy, (lane & 2u) != 0u);
}

// The sum over the lanes, for all of them.
fn lanes_sum(mine: f32) -> f32 {
    let pair = mine + quadSwapX(mine);
    return pair + quadSwapY(pair);
}
