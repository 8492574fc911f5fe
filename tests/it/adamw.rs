use globe_ops::{AdamStep, Tensor, adamw, sum_squares, tensor_f32, zeros};
use globe_tests::{assert_close, check_op, gpu, random, random_tensor, values};

use crate::{ELEMENT_TOL, SUM_TOL};

pub fn step(t: i32) -> AdamStep {
    let (beta1, beta2) = (0.9, 0.95);
    AdamStep {
        lr: 0.01 / f64::from(t),
        beta1,
        beta2,
        eps: 1e-8,
        weight_decay: 0.1,
        correction1: 1.0 - f64::powi(beta1, t),
        correction2: 1.0 - f64::powi(beta2, t),
        gradient_scale: 0.5,
    }
}

#[test]
fn a_step_matches_the_oracle() {
    check_op("adamw", ELEMENT_TOL, |device| {
        let tensor = |seed| random_tensor::<1>([1000], seed, device);
        let (parameter, mean, mean_sq) =
            adamw(tensor(1), tensor(2), tensor(3), tensor(4).powf_scalar(2.0), &step(2)).unwrap();
        Tensor::cat(vec![parameter, mean, mean_sq], 0)
    });
}

#[test]
fn the_buffers_themselves_change() {
    let device = &gpu().device;
    let [parameter, gradient] = [1, 2].map(|seed| random_tensor::<1>([10], seed, device));
    let kept = parameter.clone();
    let before = values(kept.clone());
    adamw(parameter, gradient, zeros([10], device), zeros([10], device), &step(1)).unwrap();
    assert_ne!(values(kept), before);
}

#[test]
fn squares_are_summed() {
    check_op("sum_squares", SUM_TOL, |device| {
        sum_squares(random_tensor([999], 1, device)).unwrap()
    });
    for n in [1, 255, 4096, 4097, 2_000_000] {
        let expected: f64 = random(n, 1).iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let sum = sum_squares(random_tensor([n], 1, &gpu().device)).unwrap();
        assert_close(&format!("sum_squares {n}"), &values(sum), &[expected as f32], SUM_TOL);
    }
    let device = &gpu().device;
    let mut values_ = random(10_000, 1);
    values_[9_000] = f32::NAN;
    let sum = sum_squares(tensor_f32(values_, [10_000], device)).unwrap();
    assert!(values(sum)[0].is_nan());
}

#[test]
fn lengths_that_differ_are_refused() {
    let device = &gpu().device;
    let tensor = |n| random_tensor::<1>([n], 1, device);
    assert!(adamw(tensor(3), tensor(4), tensor(3), tensor(3), &step(1)).is_err());
    assert!(adamw(tensor(3), tensor(3), tensor(3), tensor(2), &step(1)).is_err());
}
