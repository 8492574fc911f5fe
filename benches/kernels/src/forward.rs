//! What stands between the products: norms, rotary positions, lookups, activations, sampling.

use globe_ops::{
    BatchStart, BatchState, SampleOptions, WeightFormat, gelu, logp_gather, packed_gather,
    rms_norm, rotary_split, sample, swiglu,
};

use crate::rig::{Rig, Visit, bytes};
use crate::{FFN, HEADS, HIDDEN, TOKENS, VOCAB};

/// All of them.
pub fn all(rig: &Rig, visit: Visit) {
    let (x, weight) = (rig.values([TOKENS, HIDDEN]), rig.values([HIDDEN]));
    let name = format!("{TOKENS} rows");
    rig.case(visit, ["rms_norm", &name], bytes(2 * TOKENS * HIDDEN), || {
        rms_norm(x.clone(), &weight, 1e-6)
    });
    let x = rig.values([TOKENS, 2 * FFN]);
    rig.case(visit, ["swiglu", &name], bytes(3 * TOKENS * FFN), || swiglu(x.clone()));
    let x = rig.values([TOKENS, FFN]);
    rig.case(visit, ["gelu", &name], bytes(2 * TOKENS * FFN), || Ok(gelu(x.clone())));
    rotary(rig, visit);
    gather(rig, visit);
    tokens(rig, visit);
}

fn rotary(rig: &Rig, visit: Visit) {
    let [n_heads, n_kv_heads, head_dim] = HEADS;
    let width = (n_heads + 2 * n_kv_heads) * head_dim;
    let table = rig.values([TOKENS, head_dim]);
    for tokens in [1, TOKENS] {
        let qkv = rig.values([tokens, width]);
        let positions = rig.indices([3, tokens], (0..3).flat_map(|_| 0..tokens));
        let slots = rig.indices([tokens], 0..tokens);
        let [k, v] = [0, 1].map(|_| rig.values([TOKENS, n_kv_heads, head_dim]));
        let name = format!("{tokens} tokens");
        rig.case(visit, ["rotary_split", &name], bytes(2 * tokens * width), || {
            let (k, v) = (k.clone(), v.clone());
            rotary_split(qkv.clone(), &table, &positions, &slots, k, v, n_heads, &[8, 12, 12])
        });
    }
}

fn gather(rig: &Rig, visit: Visit) {
    let table = rig.matrix(WeightFormat::Q4, [VOCAB, HIDDEN]).expect("it has no 128 MiB");
    let ids = rig.indices([TOKENS], (0..TOKENS).map(|i| i * 7919 % VOCAB));
    let name = format!("q4/{TOKENS} rows");
    rig.case(visit, ["packed_gather", &name], bytes(TOKENS * HIDDEN), || {
        Ok(packed_gather(&table, ids.clone()))
    });
}

/// The likeliest token, one of all, one of the best; and how likely each was.
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
        let targets = rig.indices([rows], 0..rows);
        let name = format!("{rows} rows");
        rig.case(visit, ["logp_gather", &name], bytes(rows * VOCAB), || {
            logp_gather(logits.clone(), targets.clone(), 1.0)
        });
    }
}
