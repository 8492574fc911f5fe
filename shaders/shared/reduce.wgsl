// Workgroup reductions. Every invocation of the workgroup must call them.
//
// Two steps of 16 instead of eight of 2: software adapters pay for each barrier in each subgroup.

const WG: u32 = 256u;
const STEP: u32 = 16u; // the square root of WG

var<workgroup> scratch: array<f32, WG>;

fn workgroup_sum(i: u32, value: f32) -> f32 {
    scratch[i] = value;
    workgroupBarrier();
    if i < STEP {
        var sum = value;
        for (var j = i + STEP; j < WG; j += STEP) {
            sum += scratch[j];
        }
        scratch[i] = sum; // nobody else reads it before the barrier
    }
    workgroupBarrier();
    if i == 0u {
        var sum = scratch[0];
        for (var j = 1u; j < STEP; j++) {
            sum += scratch[j];
        }
        scratch[0] = sum;
    }
    return workgroupUniformLoad(&scratch[0]); // barrier before and after
}

fn workgroup_max(i: u32, value: f32) -> f32 {
    scratch[i] = value;
    workgroupBarrier();
    if i < STEP {
        var highest = value;
        for (var j = i + STEP; j < WG; j += STEP) {
            highest = max(highest, scratch[j]);
        }
        scratch[i] = highest;
    }
    workgroupBarrier();
    if i == 0u {
        var highest = scratch[0];
        for (var j = 1u; j < STEP; j++) {
            highest = max(highest, scratch[j]);
        }
        scratch[0] = highest;
    }
    return workgroupUniformLoad(&scratch[0]); // barrier before and after
}
