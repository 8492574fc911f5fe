// Eight weights at a time, of which a block has four, one in each unit. After `weights`, beside a binding `words` of whole
// blocks. Why formats have files of their own: eights_q4.wgsl.

const UNITS: u32 = 4u; // of a block
const EIGHTS: u32 = 1u; // of a unit

alias Words = array<Unit, UNITS>;

// Eight weights of a unit.
fn eight(unit: Unit, i: u32, scale: f32) -> mat2x4<f32> {
    return unit_values(unit);
}

fn eight_dot(unit: Unit, even: vec4<f32>, odd: vec4<f32>) -> f32 {
    let eight = unit_values(unit);
    return dot(eight[0], even) + dot(eight[1], odd);
}

// A block times inputs of all lanes: the eight at lane ^ m meets what lane ^ m loaded.
fn block_dot(at: u32, lane: u32, even: mat4x4<f32>, odd: mat4x4<f32>) -> f32 {
    let block = &words[at];
    return (eight_dot((*block)[lane], even[0], odd[0]) + eight_dot((*block)[lane ^ 1u], even[1], odd[1]))
        + (eight_dot((*block)[lane ^ 2u], even[2], odd[2]) + eight_dot((*block)[lane ^ 3u], even[3], odd[3]));
}
