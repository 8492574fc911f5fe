use globe_ops::{gather_rows, scatter_add_rows, zeros};
use globe_tests::{assert_close, check_op, gpu, indices, oracle, random_tensor, values};

use crate::{SUM_TOL, gradient};

/// Pairs of source and slot, slots repeated.
fn pairs(n: usize, dest_rows: usize) -> Vec<[usize; 2]> {
    (0..n).map(|i| [n - 1 - i, i * i * 7 % dest_rows]).collect()
}

#[test]
fn sums_match_the_oracle() {
    for [dest_rows, n_rows, dim] in
        [[1, 1, 1], [7, 3, 3], [1, 300, 5], [1000, 65, 85], [9, 513, 257]]
    {
        check_op(&format!("scatter_add_rows {dest_rows}<-{n_rows}x{dim}"), SUM_TOL, |device| {
            let dest = random_tensor([dest_rows, dim], 1, device);
            let rows = random_tensor([n_rows, dim], 2, device);
            scatter_add_rows(dest, rows, &pairs(n_rows, dest_rows)).unwrap()
        });
    }
}

#[test]
fn equal_inputs_give_equal_bits() {
    let device = &gpu().device;
    let sum = || {
        let rows = random_tensor([2000, 33], 1, device);
        let sum = scatter_add_rows(zeros([11, 33], device), rows, &pairs(2000, 11)).unwrap();
        values(sum)
    };
    assert_eq!(sum(), sum());
}

#[test]
fn the_oracle_is_the_gradient_of_a_lookup() {
    let device = oracle();
    let ids = [3, 0, 3, 4, 3, 0];
    let dy = random_tensor([6, 8], 2, &device);
    let expected = gradient([5, 8], 1, dy.clone(), |table| {
        gather_rows(&table, indices(&ids, [6], &table.device()))
    });
    let pairs: Vec<_> = ids.iter().enumerate().map(|(i, id)| [i, *id as usize]).collect();
    let got = scatter_add_rows(zeros([5, 8], &device), dy, &pairs).unwrap();
    assert_close("table", &values(got), &expected, SUM_TOL);
}

#[test]
fn pairs_outside_are_refused() {
    let device = &gpu().device;
    let add = |pairs: &[[usize; 2]]| {
        scatter_add_rows(zeros([2, 4], device), random_tensor([3, 4], 1, device), pairs)
    };
    assert!(add(&[[2, 1]]).is_ok() && add(&[]).is_ok());
    assert!(add(&[[3, 1]]).is_err() && add(&[[0, 2]]).is_err());
    assert!(scatter_add_rows(zeros([2, 3], device), zeros([3, 4], device), &[]).is_err());
}
