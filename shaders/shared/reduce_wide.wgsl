// Workgroup reductions. Every invocation of the workgroup must call them.

const WG: u32 = 256u; // power of two

var<workgroup> scratch: array<f32, WG>;

fn workgroup_sum(i: u32, value: f32) -> f32 {
    scratch[i] = value;
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        workgroupBarrier();
        if i < stride {
            scratch[i] += scratch[i + stride];
        }
    }
    return workgroupUniformLoad(&scratch[0]); // barrier before and after
}

fn workgroup_max(i: u32, value: f32) -> f32 {
    scratch[i] = value;
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        workgroupBarrier();
        if i < stride {
            scratch[i] = max(scratch[i], scratch[i + stride]);
        }
    }
    return workgroupUniformLoad(&scratch[0]); // barrier before and after
}
