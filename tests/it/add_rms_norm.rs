use globe_ops::add_rms_norm;
use globe_tests::{check_op, random_tensor};

use crate::{ELEMENT_TOL, SUM_TOL};

#[test]
fn sum_and_norm_match_the_oracle() {
    for (rows, dim) in [(1, 1), (1, 255), (63, 256), (7, 257), (65, 1280), (1000, 85)] {
        let run = |device: &globe_ops::Device| {
            let x = random_tensor([rows, dim], 1, device);
            let residual = random_tensor([rows, dim], 2, device);
            add_rms_norm(x, residual, &random_tensor([dim], 3, device), 1e-6).unwrap()
        };
        check_op(&format!("add_rms_norm sum {rows}x{dim}"), ELEMENT_TOL, |d| run(d).0);
        check_op(&format!("add_rms_norm {rows}x{dim}"), SUM_TOL, |d| run(d).1);
    }
}
