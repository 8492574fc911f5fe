use globe_ops::{Device, rotary_split, tensor_f32};
use globe_tests::{check_op, indices, random_tensor};

use crate::ELEMENT_TOL;

struct Case {
    tokens: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    rows: usize,
}

/// Output 0 is q, 1 is k, 2 is v.
fn split(case: &Case, output: usize, device: &Device) -> globe_ops::Tensor<3> {
    let Case { tokens, n_heads, n_kv_heads, head_dim, rows } = *case;
    let (half, n_positions) = (head_dim / 2, 50);
    let angles = (0..n_positions).flat_map(|p| {
        let turn = move |i: usize| p as f32 * 0.37 / (1 + i) as f32;
        (0..half).map(move |i| turn(i).cos()).chain((0..half).map(move |i| turn(i).sin()))
    });
    let table = tensor_f32(angles.collect(), [n_positions, head_dim], device);
    let positions: Vec<i32> = (0..3 * tokens).map(|i| (i * 11 % n_positions) as i32).collect();
    let positions = indices(&positions, [3, tokens], device);
    let slots: Vec<i32> = (0..tokens).map(|i| ((i * 7 + 3) % rows) as i32).collect();
    let slots = indices(&slots, [tokens], device);
    let qkv = random_tensor([tokens, (n_heads + 2 * n_kv_heads) * head_dim], 1, device);
    let buffer = |seed| random_tensor([rows, n_kv_heads, head_dim], seed, device);
    let sections = [half / 4, half / 2, half - half / 4 - half / 2];
    let (q, k, v) =
        rotary_split(qkv, &table, &positions, &slots, buffer(2), buffer(3), n_heads, &sections)
            .unwrap();
    [q, k, v][output].clone()
}

#[test]
fn matches_the_oracle() {
    for (tokens, n_heads, n_kv_heads, head_dim, rows) in
        [(1, 7, 1, 64, 5), (6, 4, 4, 20, 6), (65, 28, 4, 128, 100), (13, 2, 1, 18, 29)]
    {
        let case = Case { tokens, n_heads, n_kv_heads, head_dim, rows };
        for (output, name) in ["q", "k", "v"].iter().enumerate() {
            let what = format!("rotary_split {name} {tokens}x{n_heads}:{n_kv_heads}x{head_dim}");
            check_op(&what, ELEMENT_TOL, |device| split(&case, output, device));
        }
    }
}
