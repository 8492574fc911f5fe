//! Attention of a prompt, of a vision tower's windows, of a decode step, and backwards.

use globe_ops::{
    KvFormat, SavedAttention, StepAttention, attention, attention_backward, attention_step,
    attention_with_lse, key_ranges, tensor_i32,
};

use crate::rig::{Rig, Visit, bytes, products, suffix};
use crate::{HEADS, TOKENS};

/// Patches of a photo of 448 pixels, in windows of 8 by 8, and the tower's heads.
const PATCHES: usize = 1024;
const WINDOW: usize = 64;
const VISION_HEADS: [usize; 2] = [12, 64];
/// Answers of a step, and the keys that each has behind the shared prompt.
const ANSWERS: usize = 16;
const TAIL: usize = 32;

/// All of them. Products count the score and the sum of values.
pub fn all(rig: &Rig, visit: Visit) {
    prefill(rig, visit);
    windows(rig, visit);
    step(rig, visit);
}

/// Each token reads those up to itself.
fn causal() -> Vec<[i32; 2]> {
    (1..=TOKENS as i32).map(|end| [0, end]).collect()
}

fn prefill(rig: &Rig, visit: Visit) {
    let [n_heads, n_kv_heads, head_dim] = HEADS;
    let q = rig.values([TOKENS, n_heads, head_dim]);
    let ranges = causal();
    let key_ranges = key_ranges(&ranges, 0, TOKENS).concat();
    let (device, variant) = (&rig.compute.device, rig.compute.variant());
    let ranges = tensor_i32(ranges.concat(), [TOKENS, 2], device);
    let key_ranges = tensor_i32(key_ranges, [TOKENS, 2], device);
    let scale = (head_dim as f32).powf(-0.5);
    let pairs = TOKENS * (TOKENS + 1) / 2;
    let forward = 2 * pairs * n_heads * head_dim;
    for kv in KvFormat::ALL {
        let [k, v] = rig.cache(kv, [TOKENS, n_kv_heads, head_dim]);
        let name = format!("prompt of {TOKENS}{}", suffix(kv));
        rig.case(visit, ["attention", &name], products(forward), || {
            attention(q.clone(), k.clone(), v.clone(), ranges.clone(), scale, variant)
        });
    }

    let [k, v] = rig.cache(KvFormat::F32, [TOKENS, n_kv_heads, head_dim]);
    let (y, lse) = attention_with_lse(q.clone(), k.clone(), v.clone(), &ranges, 0, scale, variant)
        .expect("as it was called above");
    let dy = rig.values([TOKENS, n_heads, head_dim]);
    let saved = SavedAttention { q, k, v, y, lse, ranges, prefix: 0, scale, variant };
    let name = format!("prompt of {TOKENS}");
    // Scores and their gradients twice, and three sums.
    rig.case(visit, ["attention_backward", &name], products(forward / 2 * 7), || {
        attention_backward(saved.clone(), dy.clone(), &key_ranges)
    });
}

fn windows(rig: &Rig, visit: Visit) {
    let ([n_heads, head_dim], variant) = (VISION_HEADS, rig.compute.variant());
    let [q, k, v] = [0, 1, 2].map(|_| rig.values([PATCHES, n_heads, head_dim]));
    let first = |patch: usize| patch / WINDOW * WINDOW;
    let window = (0..PATCHES).flat_map(|patch| [first(patch), first(patch) + WINDOW]);
    let windows = rig.indices([PATCHES, 2], window);
    let everything = rig.indices([PATCHES, 2], (0..PATCHES).flat_map(|_| [0, PATCHES]));
    let scale = (head_dim as f32).powf(-0.5);
    for (name, ranges, keys) in
        [("windows of 64 in 1024", windows, WINDOW), ("all of 1024", everything, PATCHES)]
    {
        let work = products(2 * PATCHES * keys * n_heads * head_dim);
        rig.case(visit, ["attention", name], work, || {
            attention(q.clone(), k.clone(), v.clone(), ranges.clone(), scale, variant)
        });
    }
}

fn step(rig: &Rig, visit: Visit) {
    let ([n_heads, n_kv_heads, head_dim], variant) = (HEADS, rig.compute.variant());
    let scale = (head_dim as f32).powf(-0.5);
    let plan = StepAttention { scale, window: None, max_keys: TOKENS + TAIL, variant };
    for rows in [1, ANSWERS] {
        let slots = TOKENS + rows * TAIL;
        let q = rig.values([rows, n_heads, head_dim]);
        let place = |row: usize| [TOKENS, TOKENS + row * TAIL, TAIL, 0];
        let places = rig.indices([rows, 4], (0..rows).flat_map(place));
        for kv in KvFormat::ALL {
            let [k, v] = rig.cache(kv, [slots, n_kv_heads, head_dim]);
            let keys = suffix(kv);
            let name = format!("{rows} rows, {TOKENS} shared keys and {TAIL} each{keys}");
            let work = bytes(2 * slots * n_kv_heads * kv.words(head_dim));
            rig.case(visit, ["attention_step", &name], work, || {
                attention_step(q.clone(), k.clone(), v.clone(), &places, plan)
            });
        }
    }
}
