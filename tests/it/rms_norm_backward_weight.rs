use globe_ops::{rms_norm, rms_norm_backward_weight, zeros};
use globe_tests::{assert_close, check_op, gpu, oracle, random_tensor, values};

use crate::{SUM_TOL, gradient};

#[test]
fn gradients_match_the_oracle() {
    for [rows, dim] in [[1, 1], [63, 85], [64, 896], [65, 172], [1000, 20], [2, 3584]] {
        check_op(&format!("rms_norm_backward_weight {rows}x{dim}"), SUM_TOL, |device| {
            let [x, dy] = [1, 2].map(|seed| random_tensor([rows, dim], seed, device));
            let into = random_tensor([dim], 3, device);
            rms_norm_backward_weight(x, dy, 1e-6, into).unwrap()
        });
    }
}

#[test]
fn the_oracle_is_the_gradient() {
    let device = oracle();
    let (x, dy) = (random_tensor([5, 12], 1, &device), random_tensor([5, 12], 2, &device));
    let expected = gradient([12], 4, dy.clone(), |weight| {
        let x = globe_ops::Tensor::from_data(x.to_data(), &weight.device());
        rms_norm(x, &weight, 1e-6).unwrap()
    });
    let got = rms_norm_backward_weight(x, dy, 1e-6, zeros([12], &device)).unwrap();
    assert_close("rms_norm_backward_weight", &values(got), &expected, SUM_TOL);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let device = &gpu().device;
    let (x, dy) = (random_tensor([2, 4], 1, device), random_tensor([2, 3], 1, device));
    let into = |n| zeros([n], device);
    assert!(rms_norm_backward_weight(x.clone(), dy, 1e-6, into(4)).is_err());
    assert!(rms_norm_backward_weight(x.clone(), x, 1e-6, into(3)).is_err());
}
