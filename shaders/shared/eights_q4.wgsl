// Eight weights at a time, of which a block has four, one in each word. After `weights`, beside a binding `words` of whole
// blocks.
//
// A browser compares each index into a buffer with its length, which software adapters find by four divisions: so a
// block is looked up once. A branch that is never taken costs them as much as another, so formats have files of their own.

const UNITS: u32 = 1u; // of a block
const EIGHTS: u32 = 4u; // of a unit

alias Unit = vec4<u32>;
alias Words = array<Unit, UNITS>;

// Eight weights of a unit.
fn eight(unit: Unit, i: u32, scale: f32) -> mat2x4<f32> {
    let placed = nibbles(unit[i]);
    let by = scale * PLACES;
    let less = vec4(EXCESS * scale);
    return mat2x4(placed[0] * by - less, placed[1] * by - less);
}

fn eight_dot(word: u32, even: vec4<f32>, odd: vec4<f32>) -> f32 {
    let placed = nibbles(word);
    return dot(placed[0], even) + dot(placed[1], odd);
}

// A block, EXCESS too large and before its scale, times inputs of all lanes that were multiplied by PLACES: the eight at
// lane ^ m meets what lane ^ m loaded.
fn block_dot(at: u32, lane: u32, even: mat4x4<f32>, odd: mat4x4<f32>) -> f32 {
    let block = words[at][0];
    let swapped = select(block, block.yxwz, (lane & 1u) != 0u);
    let mine = select(swapped, swapped.zwxy, (lane & 2u) != 0u);
    return (eight_dot(mine.x, even[0], odd[0]) + eight_dot(mine.y, even[1], odd[1]))
        + (eight_dot(mine.z, even[2], odd[2]) + eight_dot(mine.w, even[3], odd[3]));
}
