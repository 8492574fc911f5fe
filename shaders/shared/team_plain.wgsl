// Sums over a team of invocations through workgroup memory alone.

const LEAST_STRIDE: u32 = 1u;

// The sum over those that share a slot of workgroup memory, and how many those are.
fn team_part(value: f32) -> f32 {
    return value;
}

fn team_stride() -> u32 {
    return 1u;
}
