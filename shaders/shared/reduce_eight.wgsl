// Workgroup reductions in workgroups of one subgroup of exactly 8, for software adapters: they pay for each barrier in each
// subgroup. Every invocation of the workgroup must call them.

const WG: u32 = 8u;

fn workgroup_sum(i: u32, value: f32) -> f32 {
    return subgroupAdd(value);
}

fn workgroup_max(i: u32, value: f32) -> f32 {
    return subgroupMax(value);
}
