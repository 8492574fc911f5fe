use globe_ops::{Tensor, rms_norm, rms_norm_backward};
use globe_tests::{assert_close, check_op, gpu, oracle, random_tensor, values};

use crate::{SUM_TOL, gradient};

#[test]
fn gradients_match_the_oracle() {
    for [rows, dim] in [[1, 1], [63, 85], [64, 896], [65, 172], [1000, 20], [2, 3584]] {
        check_op(&format!("rms_norm_backward {rows}x{dim}"), SUM_TOL, |device| {
            let [x, dy, residual] = [1, 2, 3].map(|seed| random_tensor([rows, dim], seed, device));
            let weight = random_tensor([dim], 4, device);
            let plain = rms_norm_backward(x.clone(), &weight, dy.clone(), 1e-6, None).unwrap();
            let added = rms_norm_backward(x, &weight, dy, 1e-6, Some(residual)).unwrap();
            Tensor::cat(vec![plain, added], 0)
        });
    }
}

#[test]
fn the_oracle_is_the_gradient() {
    let device = oracle();
    let (weight, dy) = (random_tensor([12], 4, &device), random_tensor([5, 12], 2, &device));
    let expected = gradient([5, 12], 1, dy.clone(), |x| {
        let weight = Tensor::from_data(weight.to_data(), &x.device());
        rms_norm(x, &weight, 1e-6).unwrap()
    });
    let x = random_tensor([5, 12], 1, &device);
    let got = rms_norm_backward(x, &weight, dy, 1e-6, None).unwrap();
    assert_close("rms_norm_backward", &values(got), &expected, SUM_TOL);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let device = &gpu().device;
    let (x, weight) = (random_tensor([2, 4], 1, device), random_tensor([4], 1, device));
    let dy = random_tensor([2, 3], 1, device);
    assert!(rms_norm_backward(x.clone(), &weight, dy.clone(), 1e-6, None).is_err());
    assert!(rms_norm_backward(x.clone(), &weight, x, 1e-6, Some(dy)).is_err());
}
