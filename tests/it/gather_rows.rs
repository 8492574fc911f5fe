use globe_ops::gather_rows;
use globe_tests::{check_op, indices, random_tensor};

#[test]
fn matches_the_oracle() {
    for (table_rows, dim, n) in [(1, 1, 1), (7, 3, 63), (512, 85, 64), (300, 257, 1000)] {
        let ids: Vec<i32> = (0..n).map(|i| (i * 7 + 3) % table_rows).collect();
        check_op(&format!("gather_rows {table_rows}x{dim} at {n}"), 0.0, |device| {
            let table = random_tensor([table_rows as usize, dim], 1, device);
            gather_rows(&table, indices(&ids, [n as usize], device))
        });
    }
}
