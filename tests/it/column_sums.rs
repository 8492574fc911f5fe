use globe_ops::{Tensor, column_sums, linear, zeros};
use globe_tests::{assert_close, check_op, gpu, oracle, random_tensor, values};

use crate::{SUM_TOL, gradient};

#[test]
fn sums_match_the_oracle() {
    for [rows, cols] in [[1, 1], [3, 64], [4, 65], [63, 85], [1001, 20], [257, 3584]] {
        check_op(&format!("column_sums {rows}x{cols}"), SUM_TOL, |device| {
            let (x, into) =
                (random_tensor([rows, cols], 1, device), random_tensor([cols], 2, device));
            column_sums(x, into).unwrap()
        });
    }
}

#[test]
fn the_oracle_is_the_gradient_of_a_bias() {
    let device = oracle();
    let dy = random_tensor([9, 5], 2, &device);
    let expected = gradient([5], 3, dy.clone(), |bias| {
        let [x, weight] = [[9, 4], [5, 4]].map(|shape| random_tensor(shape, 1, &bias.device()));
        linear(x, &weight, &bias).unwrap()
    });
    let got: Tensor<1> = column_sums(dy, zeros([5], &device)).unwrap();
    assert_close("bias", &values(got), &expected, SUM_TOL);
}

#[test]
fn another_width_is_refused() {
    let device = &gpu().device;
    let error = column_sums(random_tensor([3, 4], 1, device), zeros([3], device)).unwrap_err();
    assert!(error.to_string().contains("into"), "{error}");
}
