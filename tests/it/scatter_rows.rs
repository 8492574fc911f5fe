use globe_ops::scatter_rows;
use globe_tests::{check_op, indices, random_tensor};

#[test]
fn matches_the_oracle() {
    for (dest_rows, dim, slots) in [
        (1, 1, vec![0]),
        (7, 3, vec![6, 0, 3]),
        (1000, 85, (0..65).map(|i| i * 15).collect()),
        (64, 512, (0..64).rev().collect()),
    ] {
        check_op(&format!("scatter_rows {dest_rows}x{dim}"), 0.0, |device| {
            let dest = random_tensor([dest_rows, dim], 1, device);
            let rows = random_tensor([slots.len(), dim], 2, device);
            scatter_rows(dest, rows, indices(&slots, [slots.len()], device)).unwrap()
        });
    }
}
