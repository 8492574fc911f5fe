//! The default bodies carry gradients: checked against central differences.

use globe_ops::tensor_f32 as tensor;
use globe_ops::{Tensor, Variant, attention, linear, rms_norm, silu_mul};
use globe_tests::{indices, oracle, random};

/// Half the width of the difference, and what rounding leaves of the result in f32.
const STEP: f32 = 1e-2;
const GRADIENT_TOL: f32 = 5e-3;

/// A scalar that passes through every differentiable op once.
fn loss(x: Tensor<2>) -> Tensor<1> {
    let device = x.device();
    let make = |shape, seed| tensor(random(12 * 12, seed), shape, &device);
    let weight = make([12, 12], 2);
    let bias = weight.clone().slice([0..1, 0..12]).reshape([12]);
    let y = linear(x.clone(), &weight, &bias).unwrap();
    let heads = |t: Tensor<2>| t.reshape([4, 3, 4]);
    let ranges = indices(&[0, 1, 0, 2, 0, 3, 0, 4], [4, 2], &device);
    let y = attention(heads(y.clone()), heads(x.clone()), heads(y), ranges, 0.5, Variant::Teams)
        .unwrap();
    let y = y.reshape([4, 12]);
    let sum = x + y;
    let norm = rms_norm(sum.clone(), &bias, 1e-6).unwrap();
    silu_mul(sum, norm).unwrap().sum()
}

#[test]
fn gradients_match_central_differences() {
    let device = oracle().autodiff();
    let start = random(48, 1);
    let x = tensor(start.clone(), [4, 12], &device).require_grad();
    let gradient = x.grad(&loss(x.clone()).backward()).unwrap();
    let gradient = globe_tests::values(gradient);

    let value = |i: usize, step: f32| {
        let mut moved = start.clone();
        moved[i] += step;
        globe_tests::values(loss(tensor(moved, [4, 12], &oracle())))[0]
    };
    let numeric: Vec<f32> =
        (0..48).map(|i| (value(i, STEP) - value(i, -STEP)) / (2.0 * STEP)).collect();
    globe_tests::assert_close("gradient", &gradient, &numeric, GRADIENT_TOL);
}
