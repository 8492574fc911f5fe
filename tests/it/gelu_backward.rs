use globe_ops::{gelu, gelu_backward, tensor_f32};
use globe_tests::{assert_close, check_op, gpu, oracle, random_tensor, values};

use crate::{ELEMENT_TOL, gradient};

#[test]
fn gradients_match_the_oracle() {
    for (rows, dim) in [(1, 1), (63, 85), (65, 5120), (1000, 257)] {
        check_op(&format!("gelu_backward {rows}x{dim}"), ELEMENT_TOL, |device| {
            let x = random_tensor([rows, dim], 1, device) * 6.0;
            gelu_backward(x, random_tensor([rows, dim], 2, device)).unwrap()
        });
    }
    check_op("gelu_backward extremes", ELEMENT_TOL, |device| {
        let x = tensor_f32(vec![-100.0, -10.0, -0.0, 0.0, 10.0, 100.0], [1, 6], device);
        gelu_backward(x, random_tensor([1, 6], 2, device)).unwrap()
    });
}

#[test]
fn the_oracle_is_the_gradient() {
    let device = oracle();
    let dy = random_tensor([7, 9], 2, &device);
    let expected = gradient([7, 9], 1, dy.clone(), |x| gelu(x * 3.0)); // by x, not by 3 x
    let got = gelu_backward(random_tensor([7, 9], 1, &device) * 3.0, dy).unwrap() * 3.0;
    assert_close("gelu_backward", &values(got), &expected, 2.0 * ELEMENT_TOL);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let device = &gpu().device;
    let [x, dy] = [[2, 4], [2, 3]].map(|shape| random_tensor(shape, 1, device));
    assert!(gelu_backward(x, dy).is_err());
}
