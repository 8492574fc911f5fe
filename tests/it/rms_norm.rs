use globe_ops::rms_norm;
use globe_tests::{LARGE, check_op, random_tensor};

use crate::SUM_TOL;

#[test]
fn matches_the_oracle() {
    let rows_folded_over_two_axes = LARGE.then_some((65_536, 2));
    let sizes = [(1, 1), (1, 255), (3, 256), (7, 257), (2, 3420), (1000, 64)];
    for (rows, dim) in sizes.into_iter().chain(rows_folded_over_two_axes) {
        check_op(&format!("rms_norm {rows}x{dim}"), SUM_TOL, |device| {
            let x = random_tensor([rows, dim], 1, device);
            rms_norm(x, &random_tensor([dim], 2, device), 1e-6).unwrap()
        });
    }
}

#[test]
fn a_row_of_zeros_stays_zero() {
    check_op("rms_norm zeros", 0.0, |device| {
        let x = random_tensor([2, 64], 1, device) * 0.0;
        rms_norm(x, &random_tensor([64], 2, device), 1e-6).unwrap()
    });
}
