// Sums over a team of invocations, first within subgroups. A subgroup holds consecutive invocations, at
// least 4, and is no larger than a team, which its size divides.

const LEAST_STRIDE: u32 = 4u;

// The sum over those that share a slot of workgroup memory, and how many those are.
fn team_part(value: f32) -> f32 {
    return subgroupAdd(value);
}

fn team_stride() -> u32 {
    return u32(subgroupAdd(1.0));
}
