use globe_ops::{rotary, tensor_f32};
use globe_tests::{check_op, indices, random_tensor};

use crate::ELEMENT_TOL;

fn check(tokens: usize, heads: usize, dim: usize, sections: &[usize]) {
    let (axes, half) = (sections.len(), dim / 2);
    let n_positions = 40;
    let positions: Vec<i32> = (0..axes * tokens).map(|i| (i * 11 % n_positions) as i32).collect();
    check_op(&format!("rotary {tokens}x{heads}x{dim} {sections:?}"), ELEMENT_TOL, |device| {
        let angles = (0..n_positions).flat_map(|p| {
            let turn = move |i: usize| p as f32 * 0.37 / (1 + i) as f32;
            (0..half).map(move |i| turn(i).cos()).chain((0..half).map(move |i| turn(i).sin()))
        });
        let table = tensor_f32(angles.collect(), [n_positions, dim], device);
        let x = random_tensor([tokens, heads, dim], 1, device);
        let positions = indices(&positions, [axes, tokens], device);
        rotary(x, &table, positions, sections).unwrap()
    });
}

#[test]
fn three_axes_match_the_oracle() {
    for (tokens, heads, dim, sections) in [
        (1, 1, 16, [2, 3, 3]),
        (63, 7, 32, [4, 6, 6]),
        (65, 28, 128, [16, 24, 24]),
        (1000, 2, 20, [2, 4, 4]),
    ] {
        check(tokens, heads, dim, &sections);
    }
}

#[test]
fn two_axes_match_the_oracle() {
    for (tokens, heads, dim) in [(1, 1, 16), (64, 16, 80), (1000, 3, 20)] {
        check(tokens, heads, dim, &[dim / 4, dim / 4]);
    }
}
