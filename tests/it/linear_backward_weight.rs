use globe_ops::{Tensor, linear, linear_backward_weight, zeros};
use globe_tests::{assert_close, check_op, gpu, oracle, random_tensor, values};

use crate::{SUM_TOL, gradient};

#[test]
fn sums_match_the_oracle() {
    for [rows, outputs, cols] in
        [[1, 16, 64], [63, 64, 85], [64, 85, 32], [65, 172, 100], [1000, 32, 896], [300, 3, 5]]
    {
        let what = format!("linear_backward_weight {rows}x{outputs}x{cols}");
        check_op(&what, SUM_TOL, |device| {
            let dy = random_tensor([rows, outputs], 1, device);
            let x = random_tensor([rows, cols], 2, device);
            let into = random_tensor([outputs, cols], 3, device);
            linear_backward_weight(dy, x, 0.7, into).unwrap()
        });
    }
}

#[test]
fn the_oracle_is_the_gradient_of_linear() {
    let device = oracle();
    let (x, dy) = (random_tensor([9, 12], 1, &device), random_tensor([9, 5], 2, &device));
    let expected = gradient([5, 12], 3, dy.clone(), |weight| {
        let x = Tensor::from_data(x.to_data(), &weight.device());
        linear(x, &weight, &zeros([5], &weight.device())).unwrap()
    });
    let got = linear_backward_weight(dy, x, 1.0, zeros([5, 12], &device)).unwrap();
    assert_close("weight", &values(got), &expected, SUM_TOL);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let device = &gpu().device;
    let tensor = |shape| random_tensor(shape, 1, device);
    let error = |x, into| {
        linear_backward_weight(tensor([3, 4]), tensor(x), 1.0, tensor(into))
            .unwrap_err()
            .to_string()
    };
    assert!(error([2, 5], [4, 5]).contains('x'));
    assert!(error([3, 5], [5, 4]).contains("into"));
}
