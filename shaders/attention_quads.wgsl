// y = softmax(q k^T * scale) v and lse as in attention.wgsl, where subgroups hold four: four rows per workgroup
// of four.
//
// Rows, ranges and the running maximum as in attention.wgsl.
// Dispatch (ceil(tokens * group / 4), n_kv_heads, 1). quads at most 8 * PARTS. Needs subgroups of exactly 4.
// Oracle: globe_ops::attention, default body.

#import attention_four
#import four_lanes
#import attention_rows
#import kv
#import parts

struct Params {
    tokens: u32,
    n_kv_heads: u32,
    group: u32, // query heads per key head
    quads: u32, // head_dim / 4
    keys: u32,
    prefix: u32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read_write> q: array<vec4<f32>>;         // [tokens, n_heads, quads]
@group(0) @binding(1) var<storage, read_write> k: array<KvQuad>;            // [keys, n_kv_heads, quads]
@group(0) @binding(2) var<storage, read_write> v: array<KvQuad>;            // [keys, n_kv_heads, quads]
@group(0) @binding(3) var<storage, read_write> ranges: array<vec2<i32>>;    // [tokens] first key and end
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;         // [tokens, n_heads, quads]
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;             // [tokens, n_heads]
@group(0) @binding(6) var<uniform> params: Params;

var<workgroup> row_ranges: array<vec2<u32>, WG>; // first key of each row and its end

// Which rows see a key before `stop`.
fn sees(key: u32, stop: u32, first: vec4<u32>, end: vec4<u32>, shared_end: vec4<u32>) -> vec4<bool> {
    let at = vec4(key);
    return (((at >= first) & (at < end)) | (at < shared_end)) & vec4(key < stop);
}

fn least(v: vec4<u32>) -> u32 {
    return min(min(v.x, v.y), min(v.z, v.w));
}

fn most(v: vec4<u32>) -> u32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

// Keys that the rows walk through: 0 .. x, then y .. z, none twice.
fn rows_span(first: vec4<u32>, end: vec4<u32>, shared_end: vec4<u32>) -> vec3<u32> {
    let before = min(most(shared_end), params.keys);
    let seeing = first < end;
    let own = vec2(least(select(vec4(params.keys), first, seeing)), most(select(vec4(0u), end, seeing)));
    return vec3(min(before, own.x), own.x, max(own.x, max(own.y, before)));
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let kv_head = workgroup.y;
    let row = workgroup.x * 4u;
    let queries = vec4(
        head_row(row, kv_head), head_row(row + 1u, kv_head), head_row(row + 2u, kv_head), head_row(row + 3u, kv_head),
    );
    let own = vec2<u32>(max(ranges[queries[local] / (params.n_kv_heads * params.group)], vec2(0)));
    row_ranges[local] = vec2(own.x, min(own.y, params.keys));
    let all = workgroupUniformLoad(&row_ranges);
    let first = vec4(all[0].x, all[1].x, all[2].x, all[3].x);
    let end = vec4(all[0].y, all[1].y, all[2].y, all[3].y);
    let shared_end = min(first, vec4(params.prefix));
    let span = rows_span(first, end, shared_end);
    let shared_steps = (span.x + WALKED - 1u) / WALKED;
    let steps = shared_steps + (span.z - span.y + WALKED - 1u) / WALKED;

    let q_at = queries[local] * params.quads; // each lane loads a row
    var highest = vec4(LOWEST);
    var total = vec4<f32>();
    var sums = array<mat4x4<f32>, 2u * PARTS>(); // [quad of this invocation][row]
    for (var turn = 0u; turn < steps; turn++) {
        var start = turn * WALKED;
        var stop = span.x;
        if turn >= shared_steps {
            start = span.y + (turn - shared_steps) * WALKED;
            stop = span.z;
        }
        let n = min(WALKED, stop - start);
        let before = highest;
        for (var walked = 0u; walked < n; walked += 4u * WG) {
            let i = walked + local;
            let keys = start + i + WG * vec4(0u, 1u, 2u, 3u);
            let k_at = (min(keys, vec4(params.keys - 1u)) * params.n_kv_heads + kv_head) * params.quads;
            var scores = mat4x4<f32>(); // [key][row of lane ^ m]
            for (var d = 0u; d < params.quads; d++) {
                let rows = of_lanes(q[q_at + d]);
                let quads = mat4x4(
                    kv_values(k[k_at.x + d]), kv_values(k[k_at.y + d]), kv_values(k[k_at.z + d]), kv_values(k[k_at.w + d]),
                );
                scores += transpose(rows) * quads;
            }
            scores *= params.scale;
            let hidden = vec4(LOWEST);
            let four = mat4x4(
                select(hidden, in_order(local, scores[0]), sees(keys.x, stop, first, end, shared_end)),
                select(hidden, in_order(local, scores[1]), sees(keys.y, stop, first, end, shared_end)),
                select(hidden, in_order(local, scores[2]), sees(keys.z, stop, first, end, shared_end)),
                select(hidden, in_order(local, scores[3]), sees(keys.w, stop, first, end, shared_end)),
            );
            highest = max(highest, put_scores(i, four));
        }
        highest = four_max(local, highest);
        let shrink = exp(before - highest);
        total = total * shrink + weigh(local, n, highest);
        workgroupBarrier();
        for (var c = 0u; c * WG < params.quads; c++) {
            let quad = min(c * WG + local, params.quads - 1u);
            var sum = mat4x4<f32>();
            for (var i = 0u; i < n; i++) {
                let at = ((start + i) * params.n_kv_heads + kv_head) * params.quads;
                sum += outer(kv_values(v[at + quad]), weights[i]);
            }
            let old = sums[c];
            sums[c] = mat4x4(old[0] * shrink.x, old[1] * shrink.y, old[2] * shrink.z, old[3] * shrink.w) + sum;
        }
        workgroupBarrier();
    }

    total = four_sum(local, total);
    for (var i = 0u; i < 4u; i++) {
        if row + i >= params.tokens * params.group {
            continue;
        }
        let is_seeing = total[i] > 0.0; // a query that sees no key gives zeros
        let norm = select(0.0, 1.0 / total[i], is_seeing);
        for (var c = 0u; c * WG + local < params.quads; c++) {
            y[queries[i] * params.quads + c * WG + local] = sums[c][i] * norm;
        }
        if local == i {
            lse[queries[i]] = select(0.0, highest[i] + log(total[i]), is_seeing);
        }
    }
}
