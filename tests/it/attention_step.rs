use globe_ops::{StepAttention, attention_step};
use globe_tests::{check_op, indices, random_tensor};

use crate::SUM_TOL;

struct Case {
    rows: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    prefix: usize,
    tail: usize,
    window: Option<usize>,
}

fn check(case: &Case) {
    let Case { rows, n_heads, n_kv_heads, head_dim, prefix, tail, window } = *case;
    let slots = prefix + rows * tail;
    // Rows have come to different lengths.
    let places: Vec<i32> = (0..rows)
        .flat_map(|row| [prefix, prefix + row * tail, (row * 13) % tail + 1, 0].map(|n| n as i32))
        .collect();
    let what = format!(
        "attention_step {rows}x{n_heads}:{n_kv_heads}x{head_dim}, {prefix}+{tail}, {window:?}"
    );
    let plan =
        StepAttention { scale: (head_dim as f32).powf(-0.5), window, max_keys: prefix + tail };
    check_op(&what, SUM_TOL, |device| {
        let q = random_tensor([rows, n_heads, head_dim], 1, device);
        let k = random_tensor([slots, n_kv_heads, head_dim], 2, device);
        let v = random_tensor([slots, n_kv_heads, head_dim], 3, device);
        attention_step(q, k, v, &indices(&places, [rows, 4], device), plan).unwrap()
    });
}

#[test]
fn matches_the_oracle() {
    for (rows, n_heads, n_kv_heads, head_dim, prefix, tail) in [
        (1, 1, 1, 16, 0, 1),
        (1, 7, 1, 64, 63, 1),
        (1, 14, 2, 64, 64, 5),
        (3, 15, 1, 20, 65, 70),
        (16, 28, 4, 128, 200, 33),
        (2, 8, 8, 80, 1000, 300),
    ] {
        for window in [None, Some(1), Some(40)] {
            check(&Case { rows, n_heads, n_kv_heads, head_dim, prefix, tail, window });
        }
    }
}
