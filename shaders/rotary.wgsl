// Rotary position embedding in half-split form: pair (i, i + half) of every head turns by the
// angle of frequency i at the position of that frequency's axis.
//
// Axis of frequency i: 0 below `section_0`, 1 below `section_1`, else 2. Text uses three axes
// (time, height, width), vision two. Angles come from a table, because the sine of a large
// argument is not exact on every GPU.
// Dispatch (x, y, 1) over tokens * n_heads * half pairs, `stride` = 256 * x.
// Oracle: globe_ops::rotary, default body.

const WG: u32 = 256u;

struct Params {
    tokens: u32,
    n_heads: u32,
    half: u32,
    section_0: u32,
    section_1: u32,
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;            // [tokens, n_heads, 2 * half]
@group(0) @binding(1) var<storage, read_write> table: array<f32>;        // [positions, cos half + sin half]
@group(0) @binding(2) var<storage, read_write> positions: array<i32>;    // [axes, tokens]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;            // [tokens, n_heads, 2 * half]
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let pair = id.y * params.stride + id.x;
    let half = params.half;
    if pair >= params.tokens * params.n_heads * half {
        return;
    }
    let i = pair % half;
    let head_row = pair / half;
    let token = head_row / params.n_heads;

    let axis = u32(i >= params.section_0) + u32(i >= params.section_1);
    let angle = u32(positions[axis * params.tokens + token]) * 2u * half + i;
    let cos = table[angle];
    let sin = table[angle + half];

    let at = head_row * 2u * half + i;
    let a = x[at];
    let b = x[at + half];
    y[at] = a * cos - b * sin;
    y[at + half] = b * cos + a * sin;
}
