use globe_ops::{Device, Tensor, Variant, attention, attention_with_lse, tensor_f32};
use globe_tests::{
    LARGE, assert_close, attention_variants, gpu, indices, oracle, pack_halves, random,
    random_tensor, round_halves, values,
};

use crate::SUM_TOL;

struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    keys: usize,
    prefix: usize,
    ranges: Vec<[i32; 2]>,
}

impl Case {
    fn run(&self, device: &Device, variant: Variant) -> (Tensor<3>, Tensor<2>) {
        let Self { heads, kv_heads, head_dim, keys, prefix, ref ranges } = *self;
        let q = random_tensor([ranges.len(), heads, head_dim], 1, device) * 3.0;
        let k = random_tensor([keys, kv_heads, head_dim], 2, device);
        let v = random_tensor([keys, kv_heads, head_dim], 3, device);
        let ranges = indices(ranges.as_flattened(), [ranges.len(), 2], device);
        let scale = (head_dim as f32).powf(-0.5);
        attention_with_lse(q, k, v, &ranges, prefix, scale, variant).unwrap()
    }
}

fn check(case: &Case) {
    let Case { heads, kv_heads, head_dim, keys, prefix, ref ranges } = *case;
    let (y, lse) = case.run(&oracle(), Variant::Teams);
    let (y, lse) = (values(y), values(lse));
    for variant in attention_variants() {
        let what = format!(
            "{variant:?} {}x{heads}/{kv_heads}x{head_dim} over {keys}, prefix {prefix}",
            ranges.len()
        );
        let (got_y, got_lse) = case.run(&gpu().device, variant);
        assert_close(&format!("attention {what}"), &values(got_y), &y, SUM_TOL);
        assert_close(&format!("lse of {what}"), &values(got_lse), &lse, SUM_TOL);
    }
}

/// Tokens `start..start + n` of a causal sequence.
pub fn causal(start: usize, n: usize) -> Vec<[i32; 2]> {
    (start..start + n).map(|t| [0, t as i32 + 1]).collect()
}

/// Windows of these lengths, one after the other.
pub fn windows(lengths: &[usize]) -> Vec<[i32; 2]> {
    let mut start = 0;
    let mut ranges = Vec::new();
    for &len in lengths {
        ranges.extend(std::iter::repeat_n([start, start + len as i32], len));
        start += len as i32;
    }
    ranges
}

/// A prompt of `prefix` tokens and answers of these lengths behind it.
pub fn packed_answers(prefix: usize, answers: &[usize]) -> Vec<[i32; 2]> {
    let mut ranges = causal(0, prefix);
    for &len in answers {
        let start = ranges.len();
        ranges.extend((start..start + len).map(|t| [start as i32, t as i32 + 1]));
    }
    ranges
}

#[test]
fn causal_prefill_matches_the_oracle() {
    for (heads, kv_heads, head_dim) in
        [(7, 1, 16), (14, 2, 64), (4, 4, 80), (28, 4, 128), (3, 1, 20), (2, 1, 33), (1, 1, 1)]
    {
        for tokens in [1, 63, 64, 65] {
            let ranges = causal(0, tokens);
            check(&Case { heads, kv_heads, head_dim, keys: tokens, prefix: 0, ranges });
        }
    }
    if !LARGE {
        return;
    }
    let ranges = causal(0, 1000);
    check(&Case { heads: 7, kv_heads: 1, head_dim: 128, keys: 1000, prefix: 0, ranges });
    // More scores than the oracle holds at once.
    let ranges = causal(0, 1000);
    check(&Case { heads: 28, kv_heads: 4, head_dim: 16, keys: 1000, prefix: 0, ranges });
}

#[test]
fn a_step_on_a_larger_cache_matches_the_oracle() {
    for used in [1, 63, 64, 65, 999] {
        let ranges = causal(used - 1, 1);
        check(&Case { heads: 28, kv_heads: 4, head_dim: 128, keys: 1000, prefix: 0, ranges });
    }
}

/// Long loops: a driver may end them early.
#[test]
fn the_end_of_a_long_prompt_matches_the_oracle() {
    let keys = if LARGE { 16_384 } else { 1024 };
    check(&Case {
        heads: 2,
        kv_heads: 1,
        head_dim: 128,
        keys,
        prefix: 0,
        ranges: causal(keys - 9, 9),
    });
}

#[test]
fn windows_see_only_themselves() {
    for lengths in [&[64, 64, 32, 32][..], &[16, 8, 8, 4], &[1, 63, 65, 2], &[1000]] {
        let ranges = windows(lengths);
        let keys = ranges.len();
        check(&Case { heads: 2, kv_heads: 2, head_dim: 80, keys, prefix: 0, ranges });
    }
}

#[test]
fn answers_see_the_prompt_and_themselves() {
    for (prefix, answers) in [
        (1, &[1, 1][..]),
        (64, &[64, 64]),
        (63, &[1, 65, 30]),
        (65, &[40, 1, 100, 7]),
        (100, &[200]),
        (33, &[]),
    ] {
        for (heads, kv_heads, head_dim) in [(14, 2, 64), (2, 2, 20)] {
            let ranges = packed_answers(prefix, answers);
            check(&Case { heads, kv_heads, head_dim, keys: ranges.len(), prefix, ranges });
        }
    }
}

/// Each answer behind the shared prompt is what it would be in a sequence of its own.
#[test]
fn a_packed_answer_equals_the_answer_alone() {
    let (prefix, answers, device) = (70, [50, 1, 33], &gpu().device);
    let ranges = packed_answers(prefix, &answers);
    let case = Case { heads: 6, kv_heads: 2, head_dim: 64, keys: ranges.len(), prefix, ranges };
    let variant = gpu().variant();
    let (packed, _) = case.run(device, variant);
    let (heads, head_dim, total) = (case.heads, case.head_dim, case.keys);
    let mut start = prefix;
    for len in answers {
        let own = |x: Tensor<3>| {
            Tensor::cat(vec![x.clone().slice(0..prefix), x.slice(start..start + len)], 0)
        };
        let q = own(random_tensor([total, heads, head_dim], 1, device) * 3.0);
        let k = own(random_tensor([total, case.kv_heads, head_dim], 2, device));
        let v = own(random_tensor([total, case.kv_heads, head_dim], 3, device));
        let ranges = causal(0, prefix + len);
        let ranges = indices(ranges.as_flattened(), [prefix + len, 2], device);
        let alone = attention(q, k, v, ranges, (head_dim as f32).powf(-0.5), variant).unwrap();
        let alone = values(alone.slice(prefix..prefix + len));
        let got = values(packed.clone().slice(start..start + len));
        assert_close(&format!("answer at {start}"), &got, &alone, SUM_TOL);
        start += len;
    }
}

#[test]
fn an_empty_range_gives_zeros() {
    let ranges = vec![[0, 9], [4, 4]];
    check(&Case { heads: 2, kv_heads: 1, head_dim: 16, keys: 9, prefix: 0, ranges });
    let ranges = vec![[4, 4], [0, 0], [9, 9], [2, 5]];
    check(&Case { heads: 2, kv_heads: 1, head_dim: 16, keys: 9, prefix: 3, ranges });
    let alone =
        Case { heads: 1, kv_heads: 1, head_dim: 16, keys: 3, prefix: 0, ranges: vec![[2, 2]] };
    for variant in attention_variants() {
        let (y, lse) = alone.run(&gpu().device, variant);
        assert!(values(y).iter().all(|y| *y == 0.0));
        assert_eq!(values(lse), [0.0]);
    }
}

#[test]
fn scores_beyond_the_range_of_exp_do_not_overflow() {
    let run = |device: &Device, variant| {
        let q = random_tensor([5, 2, 32], 1, device) * 200.0;
        let k = random_tensor([70, 1, 32], 2, device) * 10.0;
        let v = random_tensor([70, 1, 32], 3, device);
        let ranges: Vec<[i32; 2]> = vec![[0, 70]; 5];
        let ranges = indices(ranges.as_flattened(), [5, 2], device);
        values(attention(q, k, v, ranges, 1.0, variant).unwrap())
    };
    let expected = run(&oracle(), Variant::Teams);
    for variant in attention_variants() {
        let what = format!("attention {variant:?} with large scores");
        assert_close(&what, &run(&gpu().device, variant), &expected, SUM_TOL);
    }
}

/// With 16-bit keys, what the oracle finds for keys that were rounded so.
#[test]
fn keys_of_16_bits_are_read_as_such() {
    let (tokens, n_heads, shape) = (37, 6, [50, 2, 20]);
    let keys = random(shape.iter().product(), 2);
    let ranges: Vec<i32> = causal(13, tokens).concat();
    // Not one buffer bound twice, which WebGPU refuses.
    let run = |[k, v]: [Tensor<3>; 2], device: &Device, variant| {
        let q = random_tensor([tokens, n_heads, shape[2]], 1, device);
        let ranges = indices(&ranges, [tokens, 2], device);
        values(attention(q, k, v, ranges, 0.3, variant).unwrap())
    };
    let rounded = || tensor_f32(round_halves(&keys), shape, &oracle());
    let packed = || pack_halves(&keys, shape, &gpu().device);
    let expected = run([rounded(), rounded()], &oracle(), Variant::Teams);
    for variant in attention_variants() {
        let got = run([packed(), packed()], &gpu().device, variant);
        assert_close(&format!("attention {variant:?}, 16 bits"), &got, &expected, SUM_TOL);
    }
    // The CPU path has no such keys, and heads must be whole words.
    for (head_dim, device) in [(20, &oracle()), (18, &gpu().device)] {
        let k: Tensor<3> = random_tensor([4, 2, head_dim / 2], 1, device);
        let q = random_tensor([1, 2, head_dim], 1, device);
        let ranges = indices(&[0, 1], [1, 2], device);
        assert!(attention(q, k.clone(), k, ranges, 1.0, Variant::Teams).is_err());
    }
}
