use globe_ops::{Device, Int, LogpOptions, Tensor, logp_gather, logp_gather_backward};
use globe_tests::{assert_close, check_op, gpu, indices, oracle, random_tensor, values};

use crate::{SUM_TOL, gradient};

const TEMPERATURE: f32 = 0.7;
const SMOOTHED: LogpOptions = LogpOptions { temperature: TEMPERATURE, smoothing: 0.1 };
const SIZES: [[usize; 2]; 5] = [[1, 151], [63, 257], [64, 5000], [65, 32], [1000, 7]];

fn targets(rows: usize, vocab: usize, device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = (0..rows).map(|row| (31 * row % vocab) as i32).collect();
    indices(&ids, [rows], device)
}

#[test]
fn values_match_the_oracle() {
    let options = [LogpOptions::from(TEMPERATURE), SMOOTHED];
    for ([rows, vocab], options) in SIZES.into_iter().flat_map(|size| options.map(|o| (size, o))) {
        let what = format!("{rows}x{vocab}, {options:?}");
        check_op(&format!("logp_gather {what}"), SUM_TOL, |device| {
            let logits = random_tensor([rows, vocab], 1, device) * 20.0;
            logp_gather(logits, targets(rows, vocab, device), options).unwrap()
        });
        check_op(&format!("logp_gather_backward {what}"), SUM_TOL, |device| {
            let logits = random_tensor([rows, vocab], 1, device) * 5.0;
            let targets = targets(rows, vocab, device);
            let stats = logp_gather(logits.clone(), targets.clone(), options).unwrap();
            let dlogp = random_tensor([rows], 2, device);
            logp_gather_backward(logits, targets, stats, dlogp, options).unwrap()
        });
    }
}

#[test]
fn the_oracle_is_log_softmax_and_its_gradient() {
    check_formula(TEMPERATURE.into());
    check_formula(SMOOTHED);
}

fn check_formula(options: LogpOptions) {
    let device = oracle();
    let (rows, vocab) = (6, 11);
    let logits = random_tensor([rows, vocab], 1, &device);
    let ids = targets(rows, vocab, &device);
    let stats = logp_gather(logits.clone(), ids.clone(), options).unwrap();
    let all: Vec<f64> = values(logits.clone()).iter().map(|x| f64::from(x / TEMPERATURE)).collect();
    let mut expected = Vec::new();
    for (row, logits) in all.chunks_exact(vocab).enumerate() {
        let lse = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
        let logp = |x: f64| x - lse;
        let entropy = -logits.iter().map(|x| logp(*x).exp() * logp(*x)).sum::<f64>();
        let mean = logits.iter().map(|x| logp(*x)).sum::<f64>() / vocab as f64;
        let smoothing = f64::from(options.smoothing);
        let chosen = (1.0 - smoothing) * logp(logits[31 * row % vocab]) + smoothing * mean;
        expected.extend([chosen, entropy, lse].map(|x| x as f32));
    }
    assert_close("stats", &values(stats.clone()), &expected, SUM_TOL);

    let dlogp = random_tensor([rows, 1], 2, &device);
    let by_tape = gradient([rows, vocab], 1, dlogp.clone(), |logits| {
        let ids = targets(rows, vocab, &logits.device());
        logp_gather(logits, ids, options).unwrap().slice([0..rows, 0..1])
    });
    let dlogp = dlogp.reshape([rows]);
    let got = logp_gather_backward(logits, ids, stats, dlogp, options).unwrap();
    assert_close("dlogits", &values(got), &by_tape, SUM_TOL);
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = &gpu().device;
    let logits = random_tensor([3, 5], 1, device);
    assert!(logp_gather(logits.clone(), targets(2, 5, device), 1.0).is_err());
    for temperature in [0.0, -1.0, f32::INFINITY, f32::NAN, 1e-40] {
        assert!(logp_gather(logits.clone(), targets(3, 5, device), temperature).is_err());
    }
    for smoothing in [-0.1, 1.0, f32::NAN] {
        let options = LogpOptions { temperature: 1.0, smoothing };
        assert!(logp_gather(logits.clone(), targets(3, 5, device), options).is_err());
    }
    let stats = random_tensor([3, 2], 1, device);
    let dlogp = random_tensor([3], 1, device);
    let ids = targets(3, 5, device);
    let (l, i, d) = (logits.clone(), ids.clone(), dlogp.clone());
    assert!(logp_gather_backward(l, i, stats, d, 1.0).is_err());
    let stats = random_tensor([3, 3], 1, device);
    assert!(logp_gather_backward(logits, ids, stats, dlogp, 0.0).is_err());
}
