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

// Quads of walked rows [walked row][quad], and once those are read the weights [walked row][four owned rows].
// A browser zeroes this memory for every workgroup: the less, the better.
var<workgroup> tile: array<vec4<f32>, WALKED * WEIGHT_STEP>;

// Quad `depth` of the four walked rows of tx.
fn staged_quads(tx: u32, depth: u32) -> mat4x4<f32> {
    let at = tx * STAGED_STEP + depth;
    let step = SIDE * STAGED_STEP;
    return mat4x4(tile[at], tile[at + step], tile[at + 2u * step], tile[at + 3u * step]);
}

// Four columns of weights, one per walked row of tx. Nobody reads staged quads any more.
fn put_weights(tx: u32, ty: u32, w: mat4x4<f32>) {
    let at = tx * WEIGHT_STEP + ty;
    let step = SIDE * WEIGHT_STEP;
    tile[at] = w[0];
    tile[at + step] = w[1];
    tile[at + 2u * step] = w[2];
    tile[at + 3u * step] = w[3];
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
