// Workgroup reductions in workgroups of four, for software adapters: they pay for each barrier in each subgroup, and a browser
// for each number of workgroup memory. Every invocation of the workgroup must call them.

const WG: u32 = 4u;

var<workgroup> scratch: array<f32, WG>;

fn workgroup_sum(i: u32, value: f32) -> f32 {
    scratch[i] = value;
    let all = workgroupUniformLoad(&scratch); // barrier before and after
    return (all[0] + all[1]) + (all[2] + all[3]);
}

fn workgroup_max(i: u32, value: f32) -> f32 {
    scratch[i] = value;
    let all = workgroupUniformLoad(&scratch); // barrier before and after
    return max(max(all[0], all[1]), max(all[2], all[3]));
}
