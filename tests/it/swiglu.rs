use globe_ops::{swiglu, swiglu_backward};
use globe_tests::{assert_close, check_op, gpu, oracle, random_tensor, values};

use crate::{ELEMENT_TOL, gradient};

#[test]
fn values_match_the_oracle() {
    for [rows, n] in [[1, 1], [63, 85], [64, 172], [65, 4864], [1000, 3]] {
        check_op(&format!("swiglu {rows}x{n}"), ELEMENT_TOL, |device| {
            swiglu(random_tensor([rows, 2 * n], 1, device) * 8.0).unwrap()
        });
        check_op(&format!("swiglu_backward {rows}x{n}"), ELEMENT_TOL, |device| {
            let x = random_tensor([rows, 2 * n], 1, device) * 8.0;
            swiglu_backward(x, random_tensor([rows, n], 2, device)).unwrap()
        });
    }
}

#[test]
fn the_oracle_is_the_gradient() {
    let device = oracle();
    let dy = random_tensor([5, 7], 2, &device);
    let expected = gradient([5, 14], 1, dy.clone(), |x| swiglu(x).unwrap());
    let got = swiglu_backward(random_tensor([5, 14], 1, &device), dy).unwrap();
    assert_close("swiglu_backward", &values(got), &expected, ELEMENT_TOL);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let device = &gpu().device;
    assert!(swiglu(random_tensor([2, 3], 1, device)).is_err());
    let (x, dy) = (random_tensor([2, 4], 1, device), random_tensor([2, 3], 1, device));
    assert!(swiglu_backward(x, dy).is_err());
}
