// Log-probability of a target under softmax(logits / temperature), the entropy of that
// distribution in nats, and its log-sum-exp: one row per workgroup. With `smoothing`, so much of the
// log-probability is its mean over the vocabulary instead.
//
// Dispatch (x, y, 1) with row = y * groups_x + x. A target outside the vocabulary reads the last
// logit: the host refuses such targets before they get here.
// Oracle: globe_ops::logp_gather, default body.

#import reduce

const LOWEST: f32 = -3.4028234e38;

struct Params {
    rows: u32,
    vocab: u32,
    groups_x: u32,
    heat: f32, // 1 / temperature
    smoothing: f32,
}

@group(0) @binding(0) var<storage, read_write> logits: array<f32>;     // [rows, vocab]
@group(0) @binding(1) var<storage, read_write> targets: array<i32>;    // [rows]
@group(0) @binding(2) var<storage, read_write> stats: array<f32>;      // [rows, logp + entropy + lse]
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.y * params.groups_x + group.x;
    if row >= params.rows {
        return;
    }
    let base = row * params.vocab;
    var highest = LOWEST;
    for (var i = local; i < params.vocab; i += WG) {
        highest = max(highest, logits[base + i] * params.heat);
    }
    highest = workgroup_max(local, highest);
    var total = 0.0;
    var weighted = 0.0;
    var moved = 0.0;
    for (var i = local; i < params.vocab; i += WG) {
        let value = logits[base + i] * params.heat - highest;
        let weight = exp(value);
        total += weight;
        moved += value;
        weighted += select(0.0, weight * value, weight > 0.0); // a logit of -inf counts nothing
    }
    let sum = workgroup_sum(local, total);
    let mean = workgroup_sum(local, weighted) / sum;
    let mean_moved = workgroup_sum(local, moved) / f32(params.vocab);
    if local == 0u {
        let lse = highest + log(sum);
        let chosen = min(u32(targets[row]), params.vocab - 1u);
        var logp = logits[base + chosen] * params.heat - lse;
        if params.smoothing > 0.0 {
            logp = (1.0 - params.smoothing) * logp + params.smoothing * (mean_moved - log(sum));
        }
        stats[3u * row] = logp;
        stats[3u * row + 1u] = log(sum) - mean;
        stats[3u * row + 2u] = lse;
    }
}
