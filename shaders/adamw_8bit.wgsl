// One step of AdamW whose two means are kept in 8 bits (arXiv 2110.02861): a workgroup unpacks a block
// of 256 values, does what adamw.wgsl does, and packs the block again by its new scales.
//
// A code is an index into a table of ascending values, and stands for table[code] * scale; the scale
// is the largest magnitude of its block. What is left of 256 in the last block stays zero.
// Dispatch (x, y, 1) with block = y * groups_x + x.
// Oracle: globe_ops::adamw_8bit, default body.

#import reduce_wide

const SQUARES: u32 = 256u; // where the table of mean squares begins

struct Params {
    len: u32,
    blocks: u32,
    groups_x: u32,
    gradient_scale: f32,
    decay: f32, // 1 - lr * weight_decay
    keep: f32, // 1 - beta1
    beta2: f32,
    keep_sq: f32, // 1 - beta2
    step_size: f32, // lr / (1 - beta1^t)
    correction: f32, // sqrt(1 - beta2^t)
    eps: f32,
}

@group(0) @binding(0) var<storage, read_write> parameter: array<f32>;    // [len]
@group(0) @binding(1) var<storage, read_write> gradient: array<f32>;     // [len]
@group(0) @binding(2) var<storage, read_write> codes: array<u32>;        // [blocks, 2, 64] four codes each
@group(0) @binding(3) var<storage, read_write> scales: array<f32>;       // [blocks, 2]
@group(0) @binding(4) var<storage, read_write> tables: array<f32>;       // [2, 256]
@group(0) @binding(5) var<uniform> params: Params;

var<workgroup> packed: array<u32, 512>; // [2, 256]

// The code whose value in the table from `table` on is nearest; the lower one from the middle.
fn nearest(table: u32, value: f32) -> u32 {
    var below = 0u;
    for (var step = 128u; step > 0u; step /= 2u) {
        if tables[table + below + step] <= value {
            below += step;
        }
    }
    let above = min(below + 1u, 255u);
    return select(below, above, tables[table + above] - value < value - tables[table + below]);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let block = group.y * params.groups_x + group.x;
    if block >= params.blocks {
        return;
    }
    let i = min(block * WG + local, params.len - 1u);
    let inside = f32(block * WG + local < params.len);
    let word = block * 128u + local / 4u;
    let shift = local % 4u * 8u;
    let g = gradient[i] * params.gradient_scale * inside;
    var m = tables[(codes[word] >> shift) & 255u] * scales[2u * block];
    var v = tables[SQUARES + ((codes[word + 64u] >> shift) & 255u)] * scales[2u * block + 1u];
    m = m + params.keep * (g - m);
    v = v * params.beta2 + params.keep_sq * g * g;
    if inside != 0.0 {
        let root = sqrt(v) / params.correction + params.eps;
        parameter[i] = parameter[i] * params.decay - params.step_size * (m / root);
    }

    let m_scale = workgroup_max(local, abs(m));
    let v_scale = workgroup_max(local, v);
    packed[local] = nearest(0u, select(m / m_scale, 0.0, m_scale == 0.0));
    // A square that rounds to zero would leave its mean to be divided by eps alone.
    let least = select(0u, 1u, v > 0.0);
    packed[WG + local] = max(nearest(SQUARES, select(v / v_scale, 0.0, v_scale == 0.0)), least);
    workgroupBarrier();
    if local < 128u {
        let p = 4u * local;
        codes[block * 128u + local] =
            packed[p] | (packed[p + 1u] << 8u) | (packed[p + 2u] << 16u) | (packed[p + 3u] << 24u);
    }
    if local == 0u {
        scales[2u * block] = m_scale;
        scales[2u * block + 1u] = v_scale;
    }
}
