//! What stands between the products: norms, rotary positions, activations, sampling.

use globe_ops::{
    BatchStart, BatchState, KvFormat, SampleOptions, advance, gelu, logp_gather, rms_norm, rotary,
    rotary_split, sample, silu_mul, swiglu,
};

use crate::rig::{Rig, Visit, bytes, suffix};
use crate::{FFN, HEADS, HIDDEN, SECTIONS, TOKENS, VOCAB};

/// All of them.
pub fn all(rig: &Rig, visit: Visit) {
    let (x, weight) = (rig.values([TOKENS, HIDDEN]), rig.values([HIDDEN]));
    let name = format!("{TOKENS} rows");
    rig.case(visit, ["rms_norm", &name], bytes(2 * TOKENS * HIDDEN), || {
        rms_norm(x.clone(), &weight, 1e-6)
    });
    let x = rig.values([TOKENS, 2 * FFN]);
    rig.case(visit, ["swiglu", &name], bytes(3 * TOKENS * FFN), || swiglu(x.clone()));
    let [gate, up] = [0, 1].map(|_| rig.values([TOKENS, FFN]));
    rig.case(visit, ["silu_mul", &name], bytes(3 * TOKENS * FFN), || {
        silu_mul(gate.clone(), up.clone())
    });
    let x = rig.values([TOKENS, FFN]);
    rig.case(visit, ["gelu", &name], bytes(2 * TOKENS * FFN), || Ok(gelu(x.clone())));
    rotations(rig, visit);
    tokens(rig, visit);
}

fn rotations(rig: &Rig, visit: Visit) {
    let [n_heads, n_kv_heads, head_dim] = HEADS;
    let width = (n_heads + 2 * n_kv_heads) * head_dim;
    let table = rig.values([TOKENS, head_dim]);
    for tokens in [1, TOKENS] {
        let qkv = rig.values([tokens, width]);
        let positions = rig.indices([3, tokens], (0..3).flat_map(|_| 0..tokens));
        let slots = rig.indices([tokens], 0..tokens);
        for kv in KvFormat::ALL {
            let [k, v] = rig.cache(kv, [TOKENS, n_kv_heads, head_dim]);
            let name = format!("{tokens} tokens{}", suffix(kv));
            let written = n_heads * head_dim + 2 * n_kv_heads * kv.words(head_dim);
            rig.case(visit, ["rotary_split", &name], bytes(tokens * (width + written)), || {
                let (k, v) = (k.clone(), v.clone());
                rotary_split(qkv.clone(), &table, &positions, &slots, k, v, n_heads, &SECTIONS)
            });
        }
    }
    let x = rig.values([TOKENS, n_heads, head_dim]);
    let positions = rig.indices([3, TOKENS], (0..3).flat_map(|_| 0..TOKENS));
    let name = format!("{TOKENS} tokens");
    rig.case(visit, ["rotary", &name], bytes(2 * TOKENS * n_heads * head_dim), || {
        rotary(x.clone(), &table, positions.clone(), &SECTIONS)
    });
}

/// The likeliest token, one of all, one of the best; how likely each was; and the step to the next.
fn tokens(rig: &Rig, visit: Visit) {
    let greedy = SampleOptions::default();
    let warm = SampleOptions { temperature: 0.7, ..greedy };
    let nucleus = SampleOptions { top_k: 50, top_p: 0.9, ..warm };
    for rows in [1, 16] {
        let samples: Vec<u32> = (0..rows as u32).collect();
        let start =
            BatchStart { prefix: 1, tail: 4, position: 1, samples: &samples, penalties: None };
        let state = BatchState::new(&start, &rig.compute.device);
        let logits = rig.values([rows, VOCAB]);
        for (how, options) in [("greedy", greedy), ("all", warm), ("top-k, top-p", nucleus)] {
            let name = format!("{how}/{rows} rows");
            let work = bytes(rows * VOCAB);
            rig.case(visit, ["sample", &name], work, || sample(logits.clone(), &state, &options));
        }
        // Of each row seven words are read and nine written; behind the last step two fewer.
        let (name, work) = (format!("{rows} rows"), bytes(16 * rows));
        rig.case(visit, ["advance", &name], work, || advance(&state, &[VOCAB as u32]));
        let targets = rig.indices([rows], 0..rows);
        rig.case(visit, ["logp_gather", &name], bytes(rows * VOCAB), || {
            logp_gather(logits.clone(), targets.clone(), 1.0)
        });
    }
}
