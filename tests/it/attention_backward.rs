//! Gradients of attention: the kernel and its oracle against automatic differentiation of the
//! forward oracle, and both against central differences.

use globe_ops::{
    Device, SavedAttention, Tensor, Variant, attention_backward, attention_with_lse, key_ranges,
    tensor_f32,
};
use globe_tests::{LARGE, assert_close, attention_variants, gpu, indices, oracle, random, values};

use crate::attention::{causal, packed_answers, windows};

/// A gradient sums products of three rounded factors over up to a few thousand queries and keys,
/// and the weights are computed again from a rounded `lse`: a few times the forward tolerance.
const GRADIENT_TOL: f32 = 5e-5;
/// Half the width of central differences, and what rounding leaves of their result in f32.
const STEP: f32 = 1e-2;
const DIFFERENCE_TOL: f32 = 5e-3;

struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    keys: usize,
    prefix: usize,
    ranges: Vec<[i32; 2]>,
}

impl Case {
    fn name(&self) -> String {
        let Self { heads, kv_heads, head_dim, keys, prefix, ranges } = self;
        let tokens = ranges.len();
        format!("{tokens}x{heads}/{kv_heads}x{head_dim} over {keys}, prefix {prefix}")
    }

    fn scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }

    fn q_shape(&self) -> [usize; 3] {
        [self.ranges.len(), self.heads, self.head_dim]
    }

    fn k_shape(&self) -> [usize; 3] {
        [self.keys, self.kv_heads, self.head_dim]
    }

    /// Values of q, k, v and dy.
    fn inputs(&self) -> [Vec<f32>; 4] {
        let [q_len, k_len] = [self.q_shape(), self.k_shape()].map(|s| s.iter().product());
        let q = random(q_len, 1).iter().map(|x| 3.0 * x).collect();
        [q, random(k_len, 2), random(k_len, 3), random(q_len, 4)]
    }

    fn forward(
        &self,
        qkv: [Tensor<3>; 3],
        device: &Device,
        variant: Variant,
    ) -> (Tensor<3>, Tensor<2>) {
        let [q, k, v] = qkv;
        let ranges = indices(self.ranges.as_flattened(), [self.ranges.len(), 2], device);
        attention_with_lse(q, k, v, &ranges, self.prefix, self.scale(), variant).unwrap()
    }

    /// dq, dk and dv of the op under test.
    fn backward(&self, device: &Device, variant: Variant) -> [Vec<f32>; 3] {
        let [q, k, v, dy] = self.inputs();
        let [q, dy] = [q, dy].map(|x| tensor_f32(x, self.q_shape(), device));
        let [k, v] = [k, v].map(|x| tensor_f32(x, self.k_shape(), device));
        let (y, lse) = self.forward([q.clone(), k.clone(), v.clone()], device, variant);
        let readers = key_ranges(&self.ranges, self.prefix, self.keys);
        let readers = indices(readers.as_flattened(), [self.keys, 2], device);
        let ranges = indices(self.ranges.as_flattened(), [self.ranges.len(), 2], device);
        let (prefix, scale) = (self.prefix, self.scale());
        let saved = SavedAttention { q, k, v, y, lse, ranges, prefix, scale, variant };
        let (dq, dk, dv) = attention_backward(saved, dy, &readers).unwrap();
        assert_eq!([dq.dims(), dk.dims()], [self.q_shape(), self.k_shape()]);
        [dq, dk, dv].map(values)
    }

    /// The same by Burn's automatic differentiation of the forward oracle.
    fn automatic(&self) -> [Vec<f32>; 3] {
        let device = oracle().autodiff();
        let [q, k, v, dy] = self.inputs();
        let q = tensor_f32(q, self.q_shape(), &device).require_grad();
        let [k, v] = [k, v].map(|x| tensor_f32(x, self.k_shape(), &device).require_grad());
        let dy = tensor_f32(dy, self.q_shape(), &device);
        let (y, _) = self.forward([q.clone(), k.clone(), v.clone()], &device, Variant::Teams);
        let grads = (y * dy).sum().backward();
        [q, k, v].map(|x| values(x.grad(&grads).unwrap()))
    }
}

fn check(case: &Case) {
    let expected = case.automatic();
    let oracle = &oracle();
    let kernels = attention_variants().map(|variant| (&gpu().device, variant, "kernel"));
    for (device, variant, what) in [(oracle, Variant::Teams, "oracle")].into_iter().chain(kernels) {
        let what = format!("{what} {variant:?}");
        let got = case.backward(device, variant);
        for ((got, expected), of) in got.iter().zip(&expected).zip(["dq", "dk", "dv"]) {
            assert_close(&format!("{of} of {what} {}", case.name()), got, expected, GRADIENT_TOL);
        }
    }
}

#[test]
fn causal_gradients_match_automatic_ones() {
    for (heads, kv_heads, head_dim) in
        [(7, 1, 16), (14, 2, 64), (4, 4, 80), (7, 1, 128), (3, 1, 20), (2, 1, 33)]
    {
        for tokens in [1, 63, 64, 65] {
            let ranges = causal(0, tokens);
            check(&Case { heads, kv_heads, head_dim, keys: tokens, prefix: 0, ranges });
        }
    }
    if LARGE {
        let ranges = causal(0, 301);
        check(&Case { heads: 14, kv_heads: 2, head_dim: 64, keys: 301, prefix: 0, ranges });
    }
    // Fewer queries than keys: the last tokens of a longer sequence.
    let ranges = causal(130, 40);
    check(&Case { heads: 7, kv_heads: 1, head_dim: 32, keys: 180, prefix: 0, ranges });
}

#[test]
fn answers_behind_a_prompt_match_automatic_gradients() {
    for (prefix, answers) in [
        (1, &[1, 1][..]),
        (64, &[64, 64]),
        (63, &[1, 65, 30]),
        (65, &[40, 1, 100, 7]),
        (100, &[200]),
    ] {
        for (heads, kv_heads, head_dim) in [(14, 2, 64), (2, 2, 20)] {
            let ranges = packed_answers(prefix, answers);
            check(&Case { heads, kv_heads, head_dim, keys: ranges.len(), prefix, ranges });
        }
    }
}

#[test]
fn windows_match_automatic_gradients() {
    for lengths in [&[64, 64, 32, 32][..], &[16, 8, 8, 4], &[1, 63, 65, 2], &[300]] {
        let ranges = windows(lengths);
        let keys = ranges.len();
        check(&Case { heads: 2, kv_heads: 2, head_dim: 80, keys, prefix: 0, ranges });
    }
}

#[test]
fn what_sees_nothing_or_is_not_seen_has_no_gradient() {
    let ranges = vec![[0, 9], [4, 4], [30, 12], [0, 0], [3, 5]];
    let case = Case { heads: 4, kv_heads: 2, head_dim: 16, keys: 12, prefix: 0, ranges };
    check(&case);
    let row = case.heads * case.head_dim;
    let unseen = 9 * case.kv_heads * case.head_dim;
    for variant in attention_variants() {
        let [dq, dk, dv] = case.backward(&gpu().device, variant);
        assert!(dq[row..4 * row].iter().all(|x| *x == 0.0), "queries with empty ranges");
        let past = dk[unseen..].iter().chain(&dv[unseen..]);
        assert!(past.into_iter().all(|x| *x == 0.0), "keys past all ranges");
    }

    let ranges = vec![[2, 2]; 70];
    let case = Case { heads: 2, kv_heads: 1, head_dim: 32, keys: 3, prefix: 0, ranges };
    for variant in attention_variants() {
        let gradients = case.backward(&gpu().device, variant);
        assert!(gradients.iter().flatten().all(|x| *x == 0.0), "nobody sees anything");
    }
    // Empty ranges behind a prefix still see the prefix.
    check(&Case { prefix: 2, ..case });
}

#[test]
fn gradients_match_central_differences() {
    let ranges = packed_answers(3, &[2, 1]);
    let case = Case { heads: 4, kv_heads: 2, head_dim: 8, keys: 6, prefix: 3, ranges };
    let inputs = case.inputs();
    let device = &gpu().device;
    for variant in attention_variants() {
        let loss = |inputs: &[Vec<f32>; 4]| {
            let [q, k, v, dy] = inputs.clone();
            let q = tensor_f32(q, case.q_shape(), device);
            let [k, v] = [k, v].map(|x| tensor_f32(x, case.k_shape(), device));
            let (y, _) = case.forward([q, k, v], device, variant);
            values(y).iter().zip(&dy).map(|(y, dy)| f64::from(y * dy)).sum::<f64>()
        };
        let gradients = case.backward(device, variant);
        for (which, name) in ["dq", "dk", "dv"].into_iter().enumerate() {
            let difference = |i: usize| {
                let moved = |step: f32| {
                    let mut inputs = inputs.clone();
                    inputs[which][i] += step;
                    loss(&inputs)
                };
                ((moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP)) as f32
            };
            let numeric: Vec<f32> = (0..gradients[which].len()).map(difference).collect();
            assert_close(name, &gradients[which], &numeric, DIFFERENCE_TOL);
        }
    }
}

#[test]
fn equal_inputs_give_equal_bits() {
    let ranges = packed_answers(65, &[40, 30]);
    let case = Case { heads: 14, kv_heads: 2, head_dim: 64, keys: 135, prefix: 65, ranges };
    for variant in attention_variants() {
        let bits = || {
            let gradients = case.backward(&gpu().device, variant);
            gradients.map(|x| x.into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        assert!(bits() == bits());
    }
}

#[test]
fn key_ranges_are_the_tokens_that_see_a_key() {
    for (ranges, prefix, keys) in [
        (packed_answers(5, &[3, 1, 4]), 5, 13),
        (windows(&[3, 1, 2]), 0, 6),
        (causal(4, 3), 0, 9),
        (vec![[2, 2], [-1, 40], [5, 1]], 3, 7),
        (vec![], 2, 2),
    ] {
        let sees = |token: usize, key: i32| {
            let [first, end] = ranges[token];
            (first <= key && key < end) || key < (prefix as i32).min(first)
        };
        let expected: Vec<[i32; 2]> = (0..keys)
            .map(|key| {
                let mut readers = (0..ranges.len()).filter(|&t| sees(t, key as i32));
                let first = readers.next();
                let last = readers.next_back().or(first);
                first.zip(last).map_or([0, 0], |(a, b)| [a as i32, b as i32 + 1])
            })
            .collect();
        assert_eq!(key_ranges(&ranges, prefix, keys), expected, "{ranges:?}, prefix {prefix}");
    }
}

#[test]
fn a_wrong_shape_is_named() {
    let device = &oracle();
    let case =
        Case { heads: 2, kv_heads: 1, head_dim: 4, keys: 3, prefix: 0, ranges: causal(0, 3) };
    let [q, k, v, dy] = case.inputs();
    let [q, dy] = [q, dy].map(|x| tensor_f32(x, case.q_shape(), device));
    let [k, v] = [k, v].map(|x| tensor_f32(x, case.k_shape(), device));
    let ranges = indices(case.ranges.as_flattened(), [3, 2], device);
    let lse = tensor_f32(vec![0.0; 3], [3, 1], device);
    let saved = SavedAttention {
        y: q.clone(),
        ranges: ranges.clone(),
        prefix: 0,
        scale: 1.0,
        variant: Variant::Teams,
        q,
        k,
        v,
        lse,
    };
    let error = attention_backward(saved, dy, &ranges).unwrap_err();
    assert_eq!(error.to_string(), "attention_backward: `lse` should have shape [3, 2], got [3, 1]");
}
