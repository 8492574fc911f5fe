use globe_ops::attention;
use globe_tests::{check_op, gpu, indices, random_tensor, values};

use crate::SUM_TOL;

struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    keys: usize,
    ranges: Vec<[i32; 2]>,
}

fn check(case: &Case) {
    let Case { heads, kv_heads, head_dim, keys, ref ranges } = *case;
    let tokens = ranges.len();
    let what = format!("attention {tokens}x{heads}/{kv_heads}x{head_dim} over {keys}");
    check_op(&what, SUM_TOL, |device| {
        let q = random_tensor([tokens, heads, head_dim], 1, device) * 3.0;
        let k = random_tensor([keys, kv_heads, head_dim], 2, device);
        let v = random_tensor([keys, kv_heads, head_dim], 3, device);
        let ranges = indices(ranges.as_flattened(), [tokens, 2], device);
        attention(q, k, v, ranges, (head_dim as f32).powf(-0.5)).unwrap()
    });
}

/// Tokens `start..start + n` of a causal sequence.
fn causal(start: usize, n: usize) -> Vec<[i32; 2]> {
    (start..start + n).map(|t| [0, t as i32 + 1]).collect()
}

/// Windows of these lengths, one after the other.
fn windows(lengths: &[usize]) -> Vec<[i32; 2]> {
    let mut start = 0;
    let mut ranges = Vec::new();
    for &len in lengths {
        ranges.extend(std::iter::repeat_n([start, start + len as i32], len));
        start += len as i32;
    }
    ranges
}

#[test]
fn causal_prefill_matches_the_oracle() {
    for (heads, kv_heads, head_dim) in
        [(7, 1, 16), (14, 2, 64), (4, 4, 80), (28, 4, 128), (3, 1, 20)]
    {
        for tokens in [1, 63, 64, 65] {
            let ranges = causal(0, tokens);
            check(&Case { heads, kv_heads, head_dim, keys: tokens, ranges });
        }
    }
    check(&Case { heads: 7, kv_heads: 1, head_dim: 128, keys: 1000, ranges: causal(0, 1000) });
    // More scores than the oracle holds at once.
    check(&Case { heads: 28, kv_heads: 4, head_dim: 16, keys: 1000, ranges: causal(0, 1000) });
}

#[test]
fn a_step_on_a_larger_cache_matches_the_oracle() {
    for used in [1, 63, 64, 65, 999] {
        let ranges = causal(used - 1, 1);
        check(&Case { heads: 28, kv_heads: 4, head_dim: 128, keys: 1000, ranges });
    }
}

#[test]
fn windows_see_only_themselves() {
    for lengths in [&[64, 64, 32, 32][..], &[16, 8, 8, 4], &[1, 63, 65, 2], &[1000]] {
        let ranges = windows(lengths);
        check(&Case { heads: 2, kv_heads: 2, head_dim: 80, keys: ranges.len(), ranges });
    }
}

#[test]
fn an_empty_range_gives_zeros() {
    let case = Case { heads: 2, kv_heads: 1, head_dim: 16, keys: 9, ranges: vec![[0, 9], [4, 4]] };
    check(&case);
    let device = &gpu().device;
    let q = random_tensor([1, 1, 16], 1, device);
    let kv = random_tensor([3, 1, 16], 2, device);
    let y = attention(q, kv.clone(), kv, indices(&[2, 2], [1, 2], device), 1.0).unwrap();
    assert!(values(y).iter().all(|y| *y == 0.0));
}

#[test]
fn scores_beyond_the_range_of_exp_do_not_overflow() {
    check_op("attention with large scores", SUM_TOL, |device| {
        let q = random_tensor([5, 2, 32], 1, device) * 200.0;
        let k = random_tensor([70, 1, 32], 2, device) * 10.0;
        let v = random_tensor([70, 1, 32], 3, device);
        let ranges: Vec<[i32; 2]> = vec![[0, 70]; 5];
        attention(q, k, v, indices(ranges.as_flattened(), [5, 2], device), 1.0).unwrap()
    });
}
