//! The kernel against the host's AdamW, which is held to torch's.

use globe_ops::{adamw, tensor_f32, zeros};
use globe_tests::{assert_close, gpu, random, values};
use globe_train::optimiser::{AdamW, AdamWConfig};

use crate::ELEMENT_TOL;
use crate::adamw::step;

#[test]
fn steps_match_the_host() {
    for n in [1, 63, 257, 70_000] {
        let device = &gpu().device;
        let mut host = AdamW::new(AdamWConfig::default());
        let mut expected = random(n, 1);
        let tensor = |values| tensor_f32::<1>(values, [n], device);
        let (mut parameter, mut mean, mut mean_sq) =
            (tensor(expected.clone()), zeros([n], device), zeros([n], device));
        for t in 1..=5 {
            let gradient = random(n, 10 + t as u64);
            host.begin_step();
            let halved: Vec<f32> = gradient.iter().map(|g| 0.5 * g).collect();
            host.update("w", &mut expected, &halved, step(t).lr).unwrap();
            (parameter, mean, mean_sq) =
                adamw(parameter, tensor(gradient), mean, mean_sq, &step(t)).unwrap();
        }
        let saved = host.save();
        assert_close("parameter", &values(parameter), &expected, ELEMENT_TOL);
        assert_close("mean", &values(mean), saved.values("w.exp_avg").unwrap(), ELEMENT_TOL);
        let squares = saved.values("w.exp_avg_sq").unwrap();
        assert_close("mean_sq", &values(mean_sq), squares, ELEMENT_TOL);
    }
}
