//! A wrong shape is an error that names op, argument and both shapes.

use globe_ops::{Variant, attention, linear, rotary};
use globe_tests::{indices, oracle, random_tensor};

#[test]
fn a_wrong_weight_is_named() {
    let device = &oracle();
    let x = random_tensor([2, 5], 1, device);
    let weight = random_tensor([3, 4], 2, device);
    let error = linear(x, &weight, &random_tensor([3], 3, device)).unwrap_err();
    assert_eq!(error.to_string(), "linear: `x` should have shape [2, 4], got [2, 5]");
}

#[test]
fn heads_that_do_not_fit_are_named() {
    let device = &oracle();
    let wide = random_tensor([1, 1, 129], 1, device);
    let ranges = || indices(&[0, 1], [1, 2], device);
    let error =
        attention(wide.clone(), wide.clone(), wide, ranges(), 1.0, Variant::Teams).unwrap_err();
    assert_eq!(error.to_string(), "attention: head_dim is 129, supported is 1 to 128");

    let q = random_tensor([1, 3, 16], 1, device);
    let kv = random_tensor([1, 2, 16], 1, device);
    let error = attention(q, kv.clone(), kv, ranges(), 1.0, Variant::Teams).unwrap_err();
    assert_eq!(
        error.to_string(),
        "attention: n_heads is 3, supported is a multiple of the key heads"
    );
}

#[test]
fn sections_must_fill_the_head() {
    let device = &oracle();
    let x = random_tensor([1, 1, 16], 1, device);
    let table = random_tensor([4, 16], 2, device);
    let positions = indices(&[0, 0, 0], [3, 1], device);
    let error = rotary(x, &table, positions, &[2, 2, 2]).unwrap_err();
    assert_eq!(error.to_string(), "rotary: `sections` should have shape [8], got [6]");
}
