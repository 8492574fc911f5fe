// Eight weights at a time, of which a block has four, one in four words. After `packed` and `weights`, beside bindings `words`,
// of whole blocks, and `scales`.
//
// A browser compares each index into a buffer with its length, which software adapters find by four divisions: so a
// block is looked up once. A branch that is never taken costs them as much as another, so each format has its own file.

const UNITS: u32 = 4u; // of a block
const EIGHTS: u32 = 1u; // of a unit

alias Unit = vec4<u32>;
alias Words = array<Unit, UNITS>;

// Eight weights of a unit.
fn eight(unit: Unit, i: u32, scale: f32) -> mat2x4<f32> {
    return mat2x4(halves(unit.xy), halves(unit.zw));
}

fn eight_dot(unit: Unit, even: vec4<f32>, odd: vec4<f32>) -> f32 {
    return dot(halves(unit.xy), even) + dot(halves(unit.zw), odd);
}

// A block times inputs of all lanes: the eight at lane ^ m meets what lane ^ m loaded.
fn block_dot(at: u32, lane: u32, even: mat4x4<f32>, odd: mat4x4<f32>) -> f32 {
    let block = &words[at];
    return (eight_dot((*block)[lane], even[0], odd[0]) + eight_dot((*block)[lane ^ 1u], even[1], odd[1]))
        + (eight_dot((*block)[lane ^ 2u], even[2], odd[2]) + eight_dot((*block)[lane ^ 3u], even[3], odd[3]));
}

// There are no scales, but without any mention the binding would be left out.
fn scales_at(at: vec4<u32>) -> vec4<u32> {
    return vec4(arrayLength(&scales));
}

fn scales_of(words: vec4<u32>, b: u32) -> vec4<f32> {
    return vec4(1.0);
}
