// Sums over a team of invocations, first within subgroups. A subgroup holds consecutive invocations and
// is no larger than a team, which its size divides.

// What invocations leave in workgroup memory, and how many of them left the same.
fn team_part(value: f32) -> f32 {
    return subgroupAdd(value);
}

fn team_stride() -> u32 {
    return u32(subgroupAdd(1.0));
}
