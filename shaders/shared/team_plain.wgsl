// Sums over a team of invocations through workgroup memory alone.

// What invocations leave in workgroup memory, and how many of them left the same.
fn team_part(value: f32) -> f32 {
    return value;
}

fn team_stride() -> u32 {
    return 1u;
}
