// dlogits = dlogp / temperature * (one-hot of the target - softmax(logits / temperature)), in place. With
// `smoothing`, so much of the one-hot is spread over the vocabulary.
//
// Dispatch (x, y, 1) over all logits, `stride` = 256 * x.
// Oracle: globe_ops::logp_gather_backward, default body.

const WG: u32 = 256u;

struct Params {
    len: u32,
    vocab: u32,
    stride: u32,
    heat: f32, // 1 / temperature
    smoothing: f32,
}

@group(0) @binding(0) var<storage, read_write> logits: array<f32>;     // [rows, vocab], changed in place
@group(0) @binding(1) var<storage, read_write> targets: array<i32>;    // [rows]
@group(0) @binding(2) var<storage, read_write> stats: array<f32>;      // [rows, logp + entropy + lse]
@group(0) @binding(3) var<storage, read_write> dlogp: array<f32>;      // [rows]
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * params.stride + id.x;
    if i >= params.len {
        return;
    }
    let row = i / params.vocab;
    let p = exp(logits[i] * params.heat - stats[3u * row + 2u]);
    let hot = f32(i % params.vocab == u32(targets[row]));
    let label = (1.0 - params.smoothing) * hot + params.smoothing / f32(params.vocab);
    logits[i] = dlogp[row] * params.heat * (label - p);
}
