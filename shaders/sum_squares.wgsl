// The sum of squares of one slice of x per workgroup; sums of slices are added by a second run
// over `partial` with `squared` 0.
//
// Dispatch (groups, 1, 1): group g sums elements g * slice .. (g + 1) * slice.
// Oracle: globe_ops::sum_squares, default body.

#import reduce

struct Params {
    len: u32,
    slice: u32,
    squared: u32, // 0: plain sums
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;          // [len]
@group(0) @binding(1) var<storage, read_write> partial: array<f32>;    // [groups]
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = group.x * params.slice;
    let end = min(first + params.slice, params.len);
    var sum = 0.0;
    for (var i = first + local; i < end; i += WG) {
        sum += select(x[i], x[i] * x[i], params.squared != 0u);
    }
    let total = workgroup_sum(local, sum);
    if local == 0u {
        partial[group.x] = total;
    }
}
