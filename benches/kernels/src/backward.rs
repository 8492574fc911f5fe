//! Gradients and the optimiser; those of attention are beside attention.

use globe_ops::{
    AdamStep, ByteMeans, WeightFormat, adamw, adamw_8bit, column_sums, gelu_backward,
    linear_backward_weight, logp_gather, logp_gather_backward, packed_linear_backward,
    rms_norm_backward, rms_norm_backward_weight, rotary_split_backward, sum_squares,
    swiglu_backward, zeros,
};

use crate::rig::{Rig, Visit, Work, bytes, products};
use crate::{FFN, HEADS, HIDDEN, SECTIONS, TOKENS, VOCAB};

/// Rank of an adapter.
const RANK: usize = 16;
/// Parameters of one update.
const PARAMETERS: usize = 1 << 22;

/// All of them.
pub fn all(rig: &Rig, visit: Visit) {
    let name = format!("{TOKENS} rows");
    linear(rig, visit);
    let (x, weight) = (rig.values([TOKENS, HIDDEN]), rig.values([HIDDEN]));
    let dy = rig.values([TOKENS, HIDDEN]);
    rig.case(visit, ["rms_norm_backward", &name], bytes(4 * TOKENS * HIDDEN), || {
        rms_norm_backward(x.clone(), &weight, dy.clone(), 1e-6, Some(dy.clone()))
    });
    let into = zeros([HIDDEN], &rig.compute.device);
    rig.case(visit, ["rms_norm_backward_weight", &name], bytes(2 * TOKENS * HIDDEN), || {
        rms_norm_backward_weight(x.clone(), dy.clone(), 1e-6, into.clone())
    });
    let (x, dy) = (rig.values([TOKENS, 2 * FFN]), rig.values([TOKENS, FFN]));
    rig.case(visit, ["swiglu_backward", &name], bytes(5 * TOKENS * FFN), || {
        swiglu_backward(x.clone(), dy.clone())
    });
    let x = rig.values([TOKENS, FFN]);
    rig.case(visit, ["gelu_backward", &name], bytes(3 * TOKENS * FFN), || {
        gelu_backward(x.clone(), dy.clone())
    });
    rotary(rig, visit);
    logp(rig, visit);
    optimiser(rig, visit);
}

fn linear(rig: &Rig, visit: Visit) {
    let dy = rig.values([TOKENS, FFN]);
    for format in [WeightFormat::Q4, WeightFormat::Q8] {
        let weight = rig.matrix(format, [FFN, HIDDEN]).expect("a small matrix fits");
        let name = format!("{}/{TOKENS} rows", format.name());
        let work = products(TOKENS * FFN * HIDDEN);
        rig.case(visit, ["packed_linear_backward", &name], work, || {
            packed_linear_backward(dy.clone(), &weight, None)
        });
    }
    let (x, into) = (rig.values([TOKENS, RANK]), zeros([FFN, RANK], &rig.compute.device));
    let name = format!("rank {RANK}/{TOKENS} rows");
    let work = products(TOKENS * FFN * RANK);
    rig.case(visit, ["linear_backward_weight", &name], work, || {
        linear_backward_weight(dy.clone(), x.clone(), 1e-6, into.clone())
    });
    let (into, name) = (zeros([FFN], &rig.compute.device), format!("{TOKENS} rows"));
    rig.case(visit, ["column_sums", &name], bytes(TOKENS * FFN), || {
        column_sums(dy.clone(), into.clone())
    });
}

fn rotary(rig: &Rig, visit: Visit) {
    let [n_heads, n_kv_heads, head_dim] = HEADS;
    let width = (n_heads + 2 * n_kv_heads) * head_dim;
    let table = rig.values([TOKENS, head_dim]);
    let positions = rig.indices([3, TOKENS], (0..3).flat_map(|_| 0..TOKENS));
    let dq = rig.values([TOKENS, n_heads, head_dim]);
    let [dk, dv] = [0, 1].map(|_| rig.values([TOKENS, n_kv_heads, head_dim]));
    let name = format!("{TOKENS} tokens");
    rig.case(visit, ["rotary_split_backward", &name], bytes(2 * TOKENS * width), || {
        let (dq, dk, dv) = (dq.clone(), dk.clone(), dv.clone());
        rotary_split_backward(dq, dk, dv, &table, &positions, &SECTIONS)
    });
}

fn logp(rig: &Rig, visit: Visit) {
    let rows = 16;
    let logits = rig.values([rows, VOCAB]);
    let targets = rig.indices([rows], 0..rows);
    let stats = logp_gather(logits.clone(), targets.clone(), 1.0).expect("the sizes fit");
    let dlogp = rig.values([rows]);
    let name = format!("{rows} rows");
    // Logits become their gradient in place: other numbers each time, and the same work.
    rig.case(visit, ["logp_gather_backward", &name], bytes(2 * rows * VOCAB), || {
        let (targets, stats) = (targets.clone(), stats.clone());
        logp_gather_backward(logits.clone(), targets, stats, dlogp.clone(), 1.0)
    });
}

fn optimiser(rig: &Rig, visit: Visit) {
    let [parameter, gradient] = [0, 1].map(|_| rig.values([PARAMETERS]));
    let [mean, mean_sq] = [0, 1].map(|_| zeros([PARAMETERS], &rig.compute.device));
    let step = AdamStep {
        lr: 1e-6,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.01,
        correction1: 0.1,
        correction2: 0.05,
        gradient_scale: 1.0,
    };
    // Four are read and three written.
    let name = format!("{PARAMETERS} parameters");
    rig.case(visit, ["adamw", &name], bytes(7 * PARAMETERS), || {
        let (gradient, mean, mean_sq) = (gradient.clone(), mean.clone(), mean_sq.clone());
        adamw(parameter.clone(), gradient, mean, mean_sq, &step)
    });
    // Two values are read and one written, means are both.
    let moved = (3 * size_of::<f32>() * PARAMETERS) as u64 + 2 * ByteMeans::size_bytes(PARAMETERS);
    let means = ByteMeans::zeros(PARAMETERS, &rig.compute.device);
    rig.case(visit, ["adamw_8bit", &name], Work::Bytes(moved), || {
        adamw_8bit(parameter.clone(), gradient.clone(), means.clone(), &step)
    });
    rig.case(visit, ["sum_squares", &name], bytes(PARAMETERS), || sum_squares(gradient.clone()));
}
