// The first half of sample.wgsl where many workgroups share a row: penalties and temperature, and of each part of the
// vocabulary the largest logit, the sum of exp below it and, unless top-k or top-p leave tokens out, the winner of the
// draw. One workgroup for a whole row would leave a graphics processor idle but for one of its cores.
//
// Dispatch (parts, rows, 1), PART tokens per workgroup. Oracle: globe_engine::Sampling::choose.

#import philox
#import reduce_wide
#import sampling
#import sampling_heat

const QUADS: u32 = PART / 4u;

@group(0) @binding(0) var<storage, read_write> logits: array<f32>;     // [rows, vocab], changed in place
@group(0) @binding(1) var<storage, read_write> seen: array<u32>;       // [rows, vocab]
@group(0) @binding(2) var<storage, read_write> draws: array<i32>;      // [rows, sample + position]
@group(0) @binding(3) var<storage, read_write> found: array<vec4<f32>>; // [rows, parts, 2] highest, its token, sum, 0; winner, its token, 0, 0
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.y;
    let base = row * params.vocab;
    let draws_here = params.temperature > 0.0 && !is_cut();
    let key = vec2(params.seed_low, params.seed_high);

    var value = LOWEST;
    var at = NOBODY;
    var noisy_value = LOWEST;
    var noisy_at = NOBODY;
    // Each invocation touches its own quads alone, so it may read again what it wrote.
    for (var quad = group.x * QUADS + local; quad < (group.x + 1u) * QUADS; quad += WG) {
        if 4u * quad >= params.vocab {
            break;
        }
        var words = vec4<u32>();
        if draws_here {
            words = philox(vec4(u32(draws[2u * row + 1u]), u32(draws[2u * row]), quad, 1u), key);
        }
        for (var j = 0u; j < 4u; j++) {
            let i = 4u * quad + j;
            if i >= params.vocab {
                break;
            }
            let logit = heated(base + i);
            if logit > value {
                value = logit;
                at = i;
            }
            let noisy = logit + gumbel(words[j]);
            if noisy > noisy_value {
                noisy_value = noisy;
                noisy_at = i;
            }
        }
    }
    let token = largest(local, value, at);
    let highest = workgroup_max(local, value);
    var sum = 0.0;
    for (var quad = group.x * QUADS + local; quad < (group.x + 1u) * QUADS; quad += WG) {
        for (var i = 4u * quad; i < min(4u * quad + 4u, params.vocab); i++) {
            sum += exp(logits[base + i] - highest);
        }
    }
    let total = workgroup_sum(local, sum);
    let winner = largest(local, noisy_value, noisy_at);
    let winning = workgroup_max(local, noisy_value);
    if local == 0u {
        let place = 2u * (row * parts() + group.x);
        found[place] = vec4(highest, f32(token), total, 0.0);
        found[place + 1u] = vec4(winning, f32(winner), 0.0, 0.0);
    }
}
