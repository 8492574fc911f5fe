use globe_ops::linear;
use globe_tests::{check_op, random_tensor};

use crate::SUM_TOL;

#[test]
fn matches_the_oracle() {
    let shapes = [
        (1, 1, 1),
        (1, 85, 7),
        (1, 3420, 1280),
        (1, 17, 70_000),
        (8, 172, 33),
        (9, 172, 33),
        (63, 85, 64),
        (64, 16, 65),
        (65, 3420, 63),
        (130, 1176, 129),
        (1000, 64, 172),
    ];
    for (rows, inputs, outputs) in shapes {
        check_op(&format!("linear {rows}x{inputs} to {outputs}"), SUM_TOL, |device| {
            let x = random_tensor([rows, inputs], 1, device);
            let weight = random_tensor([outputs, inputs], 2, device);
            linear(x, &weight, &random_tensor([outputs], 3, device)).unwrap()
        });
    }
}
