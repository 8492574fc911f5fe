use globe_ops::{AdamStep, ByteMeans, Tensor, adamw, adamw_8bit, tensor_f32, zeros};
use globe_tests::{assert_close, check_op, gpu, oracle, random, random_tensor, values};

use crate::ELEMENT_TOL;

fn step(t: i32) -> AdamStep {
    AdamStep {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        correction1: 1.0 - f64::powi(0.9, t),
        correction2: 1.0 - f64::powi(0.95, t),
        gradient_scale: 0.5,
    }
}

/// Values over many magnitudes, some of them zero.
fn spread(n: usize, seed: u64) -> Vec<f32> {
    let values = random(n, seed).into_iter().zip(random(n, seed + 1));
    values.map(|(x, y)| if y < -0.9 { 0.0 } else { x * 10f32.powf(4.0 * y) }).collect()
}

fn means(n: usize, device: &globe_ops::Device) -> ByteMeans {
    let squares: Vec<f32> = spread(n, 7).iter().map(|x| x * x).collect();
    ByteMeans::pack([&spread(n, 5), &squares], device)
}

#[test]
fn a_step_matches_the_oracle() {
    for n in [1, 63, 256, 257, 70_001] {
        check_op(&format!("adamw_8bit {n}"), ELEMENT_TOL, |device| {
            let gradient = tensor_f32(spread(n, 3), [n], device);
            let (parameter, means) =
                adamw_8bit(random_tensor([n], 1, device), gradient, means(n, device), &step(3))
                    .unwrap();
            // By a second step the codes and scales of the first show.
            let none = zeros([n], device);
            adamw_8bit(parameter, none, means, &step(4)).unwrap().0
        });
    }
}

#[test]
fn packing_unpacked_means_changes_nothing() {
    for n in [1, 255, 1000] {
        let mut unpacked = Vec::new();
        let mut packed = means(n, &oracle());
        for _ in 0..3 {
            let [mean, mean_sq] = globe_tests::block_on(packed.unpack()).unwrap();
            packed = ByteMeans::pack([&mean, &mean_sq], &gpu().device);
            unpacked.push([mean, mean_sq]);
        }
        assert!(unpacked[0] == unpacked[1] && unpacked[1] == unpacked[2]);
        // Half the widest gap between neighbours, by the largest magnitude of the block.
        let largest = spread(n, 5).iter().fold(0.0f32, |most, x| most.max(x.abs()));
        assert_close("mean", &unpacked[0][0], &spread(n, 5), 0.008 * largest.max(1.0));
    }
}

/// A badly scaled bowl: 8 bits take the same way down as 32, nearly.
#[test]
fn steps_follow_those_of_32_bits() {
    let (n, device) = (1000, &gpu().device);
    let scales: Vec<f32> = random(n, 11).into_iter().map(|y| 10f32.powf(y)).collect();
    let scales = tensor_f32::<1>(scales, [n], device);
    let start = || random_tensor::<1>([n], 1, device);
    let (mut exact, mut mean, mut mean_sq) = (start(), zeros([n], device), zeros([n], device));
    let (mut rough, mut means) = (start(), ByteMeans::zeros(n, device));
    let copy = |x: &Tensor<1>| tensor_f32::<1>(values(x.clone()), [n], device);
    for t in 1..=50 {
        let step = AdamStep { lr: 1e-2, weight_decay: 0.0, ..step(t) };
        let gradient = copy(&exact) * scales.clone();
        (exact, mean, mean_sq) = adamw(exact, gradient, mean, mean_sq, &step).unwrap();
        let gradient = copy(&rough) * scales.clone();
        (rough, means) = adamw_8bit(rough, gradient, means, &step).unwrap();
    }
    let way = |x: Tensor<1>| -> Vec<f32> {
        values(x).iter().zip(random(n, 1)).map(|(after, before)| after - before).collect()
    };
    let (exact, rough) = (way(exact), way(rough));
    let norm = |x: &[f32]| x.iter().map(|v| v * v).sum::<f32>().sqrt();
    let off: Vec<f32> = exact.iter().zip(&rough).map(|(a, b)| a - b).collect();
    assert!(norm(&off) < 0.1 * norm(&exact), "{} of {}", norm(&off), norm(&exact));
}

/// A gradient that falls silent leaves a small mean over a smaller square.
#[test]
fn small_squares_do_not_let_steps_explode() {
    let (n, device) = (256, &gpu().device);
    let mut gradient = vec![1e-4; n];
    gradient[0] = 1.0;
    let (parameter, means) = adamw_8bit(
        zeros([n], device),
        tensor_f32(gradient, [n], device),
        ByteMeans::zeros(n, device),
        &step(1),
    )
    .unwrap();
    let before = values(parameter.clone());
    let (parameter, _) = adamw_8bit(parameter, zeros([n], device), means, &step(2)).unwrap();
    let moved =
        values(parameter).iter().zip(&before).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(moved < 2e-3, "{moved} at a learning rate of 1e-3");
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let device = &gpu().device;
    let tensor = |n| random_tensor::<1>([n], 1, device);
    let run = |a, b, c| adamw_8bit(tensor(a), tensor(b), ByteMeans::zeros(c, device), &step(1));
    assert!(run(3, 4, 3).is_err() && run(3, 3, 4).is_err() && run(3, 3, 3).is_ok());
    assert_eq!(ByteMeans::size_bytes(257), 2 * (2 * 256 + 2 * 4));
}
