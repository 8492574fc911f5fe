// One step of AdamW (arXiv 1711.05101) in the order of operations of torch, all in place.
//
// Dispatch (x, y, 1) over all elements, `stride` = 256 * x.
// Oracle: globe_ops::adamw, default body.

const WG: u32 = 256u;

struct Params {
    len: u32,
    stride: u32,
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
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;         // [len]
@group(0) @binding(3) var<storage, read_write> mean_sq: array<f32>;      // [len]
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * params.stride + id.x;
    if i >= params.len {
        return;
    }
    let g = gradient[i] * params.gradient_scale;
    let m = mean[i] + params.keep * (g - mean[i]);
    let v = mean_sq[i] * params.beta2 + params.keep_sq * g * g;
    mean[i] = m;
    mean_sq[i] = v;
    let root = sqrt(v) / params.correction + params.eps;
    parameter[i] = parameter[i] * params.decay - params.step_size * (m / root);
}
