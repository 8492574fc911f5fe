// Attention of four queries by a workgroup of four, 64 keys at a time: an invocation scores four keys at a time, then
// sums quads of values. Little is in workgroup memory, and what a loop indexes is there and not in registers.

const WG: u32 = 4u;
const WALKED: u32 = 64u; // keys at a time
const LOWEST: f32 = -1e30;

// Scores, then weights [key][query].
var<workgroup> weights: array<vec4<f32>, WALKED>;
var<workgroup> gathered: array<vec4<f32>, WG>;

fn four_max(local: u32, value: vec4<f32>) -> vec4<f32> {
    gathered[local] = value;
    workgroupBarrier();
    let all = max(max(gathered[0], gathered[1]), max(gathered[2], gathered[3]));
    workgroupBarrier();
    return all;
}

fn four_sum(local: u32, value: vec4<f32>) -> vec4<f32> {
    gathered[local] = value;
    workgroupBarrier();
    let all = (gathered[0] + gathered[1]) + (gathered[2] + gathered[3]);
    workgroupBarrier();
    return all;
}

// Scores of the keys i, i + 4, i + 8 and i + 12 of an invocation; the highest of each query.
fn put_scores(i: u32, scores: mat4x4<f32>) -> vec4<f32> {
    weights[i] = scores[0];
    weights[i + WG] = scores[1];
    weights[i + 2u * WG] = scores[2];
    weights[i + 3u * WG] = scores[3];
    return max(max(scores[0], scores[1]), max(scores[2], scores[3]));
}

// Scores become weights below `highest`; the sum over the keys of this invocation. Each touches its own keys alone.
fn weigh(local: u32, n: u32, highest: vec4<f32>) -> vec4<f32> {
    var total = vec4<f32>();
    for (var i = local; i < n; i += WG) {
        let score = weights[i];
        let weight = select(vec4(0.0), exp(score - highest), score > vec4(LOWEST));
        weights[i] = weight;
        total += weight;
    }
    return total;
}

// One quad for each of four queries, by its weight.
fn outer(quad: vec4<f32>, w: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(quad * w.x, quad * w.y, quad * w.z, quad * w.w);
}
