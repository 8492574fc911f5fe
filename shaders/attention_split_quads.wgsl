// Part of softmax(q k^T * scale) v for one new token per row, as attention_split.wgsl and in the same
// places, where subgroups hold four: four query heads and 64 keys per workgroup of four.
//
// Dispatch (chunks, n_kv_heads * teams, rows), up to 4 query heads in a team. head_dim is a multiple of 4.
// Needs subgroups of exactly 4.
// Oracle: globe_ops::attention_step, default body.

#import attention_four
#import four_lanes
#import kv

struct Params {
    n_kv_heads: u32,
    group: u32, // query heads per key head
    quads: u32, // head_dim / 4
    chunks: u32,
    window: u32, // 0: none
    teams: u32, // ceil(group / 4)
    scale: f32,
}

@group(0) @binding(0) var<storage, read_write> q: array<vec4<f32>>;        // [rows, n_heads, quads]
@group(0) @binding(1) var<storage, read_write> k: array<KvQuad>;           // [slots, n_kv_heads, quads]
@group(0) @binding(2) var<storage, read_write> v: array<KvQuad>;           // [slots, n_kv_heads, quads]
@group(0) @binding(3) var<storage, read_write> places: array<i32>;         // [rows, prefix + tail start + tail length + position]
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;     // [rows, n_heads, chunks, quads]
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;    // [rows, n_heads, chunks] highest score, sum of weights
@group(0) @binding(6) var<uniform> params: Params;

var<workgroup> place: vec3<u32>; // prefix, start and length of the tail

// Where the quads of four keys or values begin.
fn quads_at(keys: vec4<u32>, mine: vec3<u32>, kv_head: u32) -> vec4<u32> {
    let slots = select(mine.y + keys - mine.x, keys, keys < vec4(mine.x));
    return (slots * params.n_kv_heads + kv_head) * params.quads;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.z;
    let kv_head = group.y / params.teams;
    let first_head = kv_head * params.group + (group.y % params.teams) * 4u;
    let n_heads = min(4u, (kv_head + 1u) * params.group - first_head);
    let head_row = row * params.n_kv_heads * params.group + first_head;

    // Through workgroup memory, so that the compiler knows that the early return is uniform.
    if local == 0u {
        place = vec3(u32(places[4u * row]), u32(places[4u * row + 1u]), u32(places[4u * row + 2u]));
    }
    let mine = workgroupUniformLoad(&place);
    let len = mine.x + mine.z;
    let first_key = group.x * WALKED;
    if first_key >= len {
        return; // attention_merge does not read this part
    }
    let n = min(WALKED, len - first_key);
    let oldest = select(0u, len - min(len, params.window), params.window > 0u);

    // Each lane loads a head; those past the last repeat it.
    let q_at = (head_row + min(local, n_heads - 1u)) * params.quads;
    var highest = vec4(LOWEST);
    for (var first = 0u; first < n; first += 4u * WG) {
        let i = first + local;
        let keys = first_key + i + WG * vec4(0u, 1u, 2u, 3u);
        let k_at = quads_at(min(keys, vec4(len - 1u)), mine, kv_head);
        var scores = mat4x4<f32>(); // [key][head of lane ^ m]
        for (var d = 0u; d < params.quads; d++) {
            let heads = of_lanes(q[q_at + d]);
            let quads = mat4x4(
                kv_values(k[k_at.x + d]), kv_values(k[k_at.y + d]), kv_values(k[k_at.z + d]), kv_values(k[k_at.w + d]),
            );
            scores += transpose(heads) * quads;
        }
        let visible = (keys >= vec4(oldest)) & (keys < vec4(len));
        let hidden = vec4(LOWEST);
        scores *= params.scale;
        let four = mat4x4(
            select(hidden, in_order(local, scores[0]), visible.x), select(hidden, in_order(local, scores[1]), visible.y),
            select(hidden, in_order(local, scores[2]), visible.z), select(hidden, in_order(local, scores[3]), visible.w),
        );
        highest = max(highest, put_scores(i, four));
    }
    highest = four_max(local, highest);
    let total = four_sum(local, weigh(local, n, highest));
    if local < n_heads {
        stats[(head_row + local) * params.chunks + group.x] = vec2(highest[local], total[local]);
    }

    // Two quads at a time share the weights, where a head has so many.
    let has_next = params.quads > WG;
    for (var quad = local; quad < params.quads; quad += 2u * WG) {
        let next = min(quad + WG, params.quads - 1u);
        var sum = mat4x4<f32>(); // [head]
        var next_sum = mat4x4<f32>();
        for (var i = 0u; i < n; i++) {
            let key = first_key + i;
            let slot = select(mine.y + key - mine.x, key, key < mine.x);
            let at = (slot * params.n_kv_heads + kv_head) * params.quads;
            let weight = weights[i];
            sum += outer(kv_values(v[at + quad]), weight);
            if has_next {
                next_sum += outer(kv_values(v[at + next]), weight);
            }
        }
        // What is indexed by a loop does not stay in registers.
        let done = sum;
        let next_done = next_sum;
        for (var h = 0u; h < n_heads; h++) {
            let at = ((head_row + h) * params.chunks + group.x) * params.quads;
            sums[at + quad] = done[h];
            if quad + WG < params.quads {
                sums[at + next] = next_done[h];
            }
        }
    }
}
