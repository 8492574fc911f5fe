// Eight weights at a time, of which a block has four, one in two words. After `weights`, beside a binding `words` of whole
// blocks.
//
// A browser compares each index into a buffer with its length, which software adapters find by four divisions: so a
// block is looked up once. A branch that is never taken costs them as much as another, so formats have files of their own.

const UNITS: u32 = 2u; // of a block
const EIGHTS: u32 = 2u; // of a unit

alias Unit = vec4<u32>;
alias Words = array<Unit, UNITS>;

fn half_of(unit: Unit, i: u32) -> vec2<u32> {
    return select(unit.xy, unit.zw, i == 1u);
}

// Eight weights of a unit.
fn eight(unit: Unit, i: u32, scale: f32) -> mat2x4<f32> {
    let half = half_of(unit, i);
    return mat2x4(bytes(half.x) * scale, bytes(half.y) * scale);
}

fn eight_dot(half: vec2<u32>, even: vec4<f32>, odd: vec4<f32>) -> f32 {
    return dot(bytes(half.x), even) + dot(bytes(half.y), odd);
}

// A block before its scale times inputs of all lanes: the eight at lane ^ m meets what lane ^ m loaded.
fn block_dot(at: u32, lane: u32, even: mat4x4<f32>, odd: mat4x4<f32>) -> f32 {
    let block = &words[at];
    let own = (*block)[lane / 2u];
    let other = (*block)[(lane / 2u) ^ 1u];
    let i = lane & 1u;
    return (eight_dot(half_of(own, i), even[0], odd[0]) + eight_dot(half_of(own, i ^ 1u), even[1], odd[1]))
        + (eight_dot(half_of(other, i), even[2], odd[2]) + eight_dot(half_of(other, i ^ 1u), even[3], odd[3]));
}
