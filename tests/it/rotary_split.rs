use globe_ops::{Device, Tensor, rotary_split, tensor_f32, zeros};
use globe_tests::{
    assert_close, check_op, gpu, indices, oracle, random_tensor, unpack_halves, values,
};

use crate::ELEMENT_TOL;

struct Case {
    tokens: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    rows: usize,
}

/// Output 0 is q, 1 is k, 2 is v.
fn split(case: &Case, output: usize, device: &Device) -> Tensor<3> {
    let Case { n_kv_heads, head_dim, rows, .. } = *case;
    let buffer = |seed| random_tensor([rows, n_kv_heads, head_dim], seed, device);
    split_into(case, buffer(2), buffer(3))[output].clone()
}

fn split_into(case: &Case, k: Tensor<3>, v: Tensor<3>) -> [Tensor<3>; 3] {
    let device = &k.device();
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
    let sections = [half / 4, half / 2, half - half / 4 - half / 2];
    rotary_split(qkv, &table, &positions, &slots, k, v, n_heads, &sections).unwrap().into()
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

#[test]
fn keys_and_values_are_written_in_16_bits() {
    for (tokens, n_heads, n_kv_heads, head_dim, rows) in [(1, 7, 1, 64, 5), (6, 4, 4, 20, 6)] {
        let case = Case { tokens, n_heads, n_kv_heads, head_dim, rows };
        let empty = |device: &Device, width| zeros([rows, n_kv_heads, width], device);
        let run = |device: &Device, width| {
            split_into(&case, empty(device, width), empty(device, width)).map(values)
        };
        let [q, k, v] = run(&gpu().device, head_dim / 2);
        let expected = run(&oracle(), head_dim);
        assert_close("q beside 16 bits", &q, &expected[0], ELEMENT_TOL);
        // Half a unit in the last of 11 bits, and what the turn itself may differ by.
        for (name, got, expected) in [("k", k, &expected[1]), ("v", v, &expected[2])] {
            assert_close(name, &unpack_halves(&got), expected, 1.0 / 2048.0 + ELEMENT_TOL);
        }
    }
}
