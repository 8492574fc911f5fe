use globe_ops::{silu_mul, tensor_f32};
use globe_tests::{check_op, random_tensor};

use crate::ELEMENT_TOL;

#[test]
fn matches_the_oracle() {
    for (rows, dim) in [(1, 1), (63, 85), (64, 172), (65, 3420), (1000, 257)] {
        check_op(&format!("silu_mul {rows}x{dim}"), ELEMENT_TOL, |device| {
            let gate = random_tensor([rows, dim], 1, device) * 8.0;
            silu_mul(gate, random_tensor([rows, dim], 2, device)).unwrap()
        });
    }
}

#[test]
fn large_gates_neither_overflow_nor_vanish() {
    let gates = vec![-200.0, -90.0, -1e-20, 0.0, 1e-20, 90.0, 200.0];
    check_op("silu_mul extremes", ELEMENT_TOL, |device| {
        let gate = tensor_f32(gates.clone(), [1, 7], device);
        silu_mul(gate, tensor_f32(vec![1.0; 7], [1, 7], device)).unwrap()
    });
}
