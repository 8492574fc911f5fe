use globe_ops::{Device, StepAttention, Tensor, attention_step, tensor_f32};
use globe_tests::{
    assert_close, attention_variants, check_op, gpu, indices, oracle, pack_halves, random,
    random_tensor, round_halves, values,
};

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
    for variant in attention_variants() {
        let scale = (head_dim as f32).powf(-0.5);
        let plan = StepAttention { scale, window, max_keys: prefix + tail, variant };
        check_op(&format!("{what}, {variant:?}"), SUM_TOL, |device| {
            let q = random_tensor([rows, n_heads, head_dim], 1, device);
            let k = random_tensor([slots, n_kv_heads, head_dim], 2, device);
            let v = random_tensor([slots, n_kv_heads, head_dim], 3, device);
            attention_step(q, k, v, &indices(&places, [rows, 4], device), plan).unwrap()
        });
    }
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
        (5, 18, 2, 32, 128, 64),
    ] {
        for window in [None, Some(1), Some(40)] {
            check(&Case { rows, n_heads, n_kv_heads, head_dim, prefix, tail, window });
        }
    }
}

/// With 16-bit keys, what the oracle finds for keys that were rounded so.
#[test]
fn keys_of_16_bits_are_read_as_such() {
    let (rows, n_heads, n_kv_heads, head_dim, prefix, tail) = (3, 14, 2, 64, 70, 9);
    let slots = prefix + rows * tail;
    let places: Vec<i32> = (0..rows)
        .flat_map(|row| [prefix, prefix + row * tail, row + 5, 0].map(|n| n as i32))
        .collect();
    let shape = [slots, n_kv_heads, head_dim];
    let keys = random(shape.iter().product(), 2);
    // Not one buffer bound twice, which WebGPU refuses.
    let run = |[k, v]: [Tensor<3>; 2], device: &Device, variant| {
        let plan = StepAttention { scale: 0.125, window: None, max_keys: prefix + tail, variant };
        let q = random_tensor([rows, n_heads, head_dim], 1, device);
        values(attention_step(q, k, v, &indices(&places, [rows, 4], device), plan).unwrap())
    };
    let rounded = || tensor_f32(round_halves(&keys), shape, &oracle());
    let packed = || pack_halves(&keys, shape, &gpu().device);
    for variant in attention_variants() {
        let expected = run([rounded(), rounded()], &oracle(), variant);
        let got = run([packed(), packed()], &gpu().device, variant);
        assert_close(&format!("attention_step, 16 bits, {variant:?}"), &got, &expected, SUM_TOL);
    }
}
