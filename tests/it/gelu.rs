use globe_ops::{gelu, tensor_f32};
use globe_tests::{check_op, random_tensor};

use crate::ELEMENT_TOL;

#[test]
fn matches_the_oracle() {
    for (rows, dim) in [(1, 1), (63, 85), (65, 5120), (1000, 257)] {
        check_op(&format!("gelu {rows}x{dim}"), ELEMENT_TOL, |device| {
            gelu(random_tensor([rows, dim], 1, device) * 6.0)
        });
    }
}

#[test]
fn extremes_are_zero_or_themselves() {
    check_op("gelu extremes", ELEMENT_TOL, |device| {
        gelu(tensor_f32(vec![-100.0, -10.0, -0.0, 0.0, 10.0, 100.0], [1, 6], device))
    });
}
