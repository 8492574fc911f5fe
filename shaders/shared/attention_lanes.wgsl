// Attention with a subgroup of 8 lanes: each lane owns rows, and walks with the others through 8 more
// at a time, of which each lane loads one. Broadcasts bring it to all.

const LANES: u32 = 8u;
const LOWEST: f32 = -1e30;

alias Scores = array<vec4<f32>, 2>; // one for each walked row

// What each lane has, the lane of a broadcast being a constant.
fn spread(mine: vec4<f32>) -> array<vec4<f32>, LANES> {
    return array(
        subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u),
        subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u),
        subgroupBroadcast(mine, 4u), subgroupBroadcast(mine, 5u),
        subgroupBroadcast(mine, 6u), subgroupBroadcast(mine, 7u),
    );
}

// Scores with one quad of an owned row and of every walked row added.
fn with_quad(scores: Scores, own: vec4<f32>, walked: array<vec4<f32>, LANES>) -> Scores {
    let low = vec4(dot(own, walked[0]), dot(own, walked[1]), dot(own, walked[2]), dot(own, walked[3]));
    let high = vec4(dot(own, walked[4]), dot(own, walked[5]), dot(own, walked[6]), dot(own, walked[7]));
    return Scores(scores[0] + low, scores[1] + high);
}

// One quad of every walked row by its weight.
fn weighted(weights: Scores, walked: array<vec4<f32>, LANES>) -> vec4<f32> {
    let low = weights[0].x * walked[0] + weights[0].y * walked[1]
        + weights[0].z * walked[2] + weights[0].w * walked[3];
    let high = weights[1].x * walked[4] + weights[1].y * walked[5]
        + weights[1].z * walked[6] + weights[1].w * walked[7];
    return low + high;
}
