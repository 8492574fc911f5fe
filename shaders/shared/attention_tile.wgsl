// Tiles of attention: a workgroup owns 64 rows and walks through others, 32 at a time. Invocation
// (tx, ty) = (local % 8, local / 8) computes the owned rows 4 ty .. 4 ty + 4 against the walked rows
// tx, tx + 8, tx + 16, tx + 24, and sums the quads tx, tx + 8, .. of each owned row.

const OWNED: u32 = 64u;
const WALKED: u32 = 32u;
const WG: u32 = 128u;
const SIDE: u32 = 8u;
const DEPTH: u32 = 8u; // quads of a walked row in workgroup memory at a time
const STAGED_STEP: u32 = 9u; // DEPTH + 1 keeps rows in different banks
const WEIGHT_STEP: u32 = 17u; // OWNED / 4 + 1 likewise
const LOWEST: f32 = -1e30;

var<workgroup> staged: array<vec4<f32>, WALKED * STAGED_STEP>; // [walked row][quad]
var<workgroup> weights: array<vec4<f32>, WALKED * WEIGHT_STEP>; // [walked row][four owned rows]

// Quad `depth` of the four walked rows of tx.
fn staged_quads(tx: u32, depth: u32) -> mat4x4<f32> {
    let at = tx * STAGED_STEP + depth;
    let step = SIDE * STAGED_STEP;
    return mat4x4(staged[at], staged[at + step], staged[at + 2u * step], staged[at + 3u * step]);
}

// Four columns of weights, one per walked row of tx.
fn put_weights(tx: u32, ty: u32, w: mat4x4<f32>) {
    let at = tx * WEIGHT_STEP + ty;
    let step = SIDE * WEIGHT_STEP;
    weights[at] = w[0];
    weights[at + step] = w[1];
    weights[at + 2u * step] = w[2];
    weights[at + 3u * step] = w[3];
}

// One walked quad for each owned row, by its weight.
fn outer(quad: vec4<f32>, w: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(quad * w.x, quad * w.y, quad * w.z, quad * w.w);
}

// Which of four queries see a key: it is in [first, end) or before `shared_end`.
fn sees(key: u32, first: vec4<u32>, end: vec4<u32>, shared_end: vec4<u32>) -> vec4<bool> {
    let at = vec4(key);
    return ((at >= first) & (at < end)) | (at < shared_end);
}
