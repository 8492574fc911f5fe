use globe_ops::{
    Compute, Fused, Tensor, Variant, WeightFormat, packed_linear, packed_linear_backward,
};
use globe_tests::{assert_close, gpu, packed, packed_in_parts, random, random_tensor, values};

use crate::SUM_TOL;

/// The adapter with the kernel that it chooses, and with the one for GPUs.
fn kernels() -> [Compute; 2] {
    [gpu().clone(), gpu().clone().with_variant(Variant::Teams)]
}

fn check(format: WeightFormat, [rows, outputs, cols]: [usize; 3]) {
    let what = format!("packed_linear_backward {format:?} {rows}x{outputs}x{cols}");
    let run = |compute: &Compute| {
        let weight = packed(&random(outputs * cols, 1), outputs, cols, format, compute);
        let dy = random_tensor([rows, outputs], 2, &compute.device);
        let residual = random_tensor([rows, cols], 3, &compute.device);
        let plain = packed_linear_backward(dy.clone(), &weight, None).unwrap();
        let added = packed_linear_backward(dy, &weight, Some(residual)).unwrap();
        values(Tensor::cat(vec![plain, added], 0))
    };
    let expected = run(&Compute::cpu());
    for compute in kernels() {
        let what = format!("{what} {:?}", compute.variant());
        assert_close(&what, &run(&compute), &expected, SUM_TOL);
    }
}

#[test]
fn gradients_match_the_oracle() {
    for format in WeightFormat::ALL {
        for size in [
            [1, 64, 64],
            [63, 100, 88],
            [17, 36, 132],
            [63, 100, 85],
            [64, 96, 172],
            [65, 33, 896],
            [130, 500, 20],
        ] {
            check(format, size);
        }
    }
    check(WeightFormat::Q4, [1000, 151, 96]);
}

#[test]
fn parts_add_up() {
    let run = |compute: &Compute, part_rows: usize| {
        let weight = random(152 * 96, 1);
        let weight = packed_in_parts(&weight, part_rows, 96, WeightFormat::Q8, compute);
        let dy = random_tensor([70, 152], 2, &compute.device);
        let residual = random_tensor([70, 96], 3, &compute.device);
        values(packed_linear_backward(dy, &weight, Some(residual)).unwrap())
    };
    let whole = run(&Compute::cpu(), 152);
    assert_close("oracle", &run(&Compute::cpu(), 64), &whole, SUM_TOL);
    for compute in kernels() {
        for part_rows in [152, 64, 63] {
            let what = format!("parts of {part_rows} by {:?}", compute.variant());
            assert_close(&what, &run(&compute, part_rows), &whole, SUM_TOL);
        }
    }
}

#[test]
fn the_oracle_is_the_gradient_of_packed_linear() {
    let cpu = Compute::cpu();
    let weight = packed(&random(40 * 50, 1), 40, 50, WeightFormat::Q4, &cpu);
    let dy = random_tensor([7, 40], 2, &cpu.device);
    let dx = values(packed_linear_backward(dy.clone(), &weight, None).unwrap());
    // The product is linear: its gradient along each input is its value at the unit vector.
    for i in [0, 1, 31, 32, 49] {
        let mut unit = vec![0.0; 50];
        unit[i] = 1.0;
        let unit = globe_ops::tensor_f32(unit, [1, 50], &cpu.device);
        let column = packed_linear(unit, &weight, None, Fused::default()).unwrap();
        let expected = values((dy.clone() * column).sum_dim(1));
        let got: Vec<f32> = dx.iter().skip(i).step_by(50).copied().collect();
        assert_close("column", &got, &expected, SUM_TOL);
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let compute = gpu();
    let weight = packed(&random(64 * 96, 1), 64, 96, WeightFormat::Q8, compute);
    let dy = random_tensor([3, 63], 2, &compute.device);
    let error = packed_linear_backward(dy, &weight, None).unwrap_err().to_string();
    assert!(error.contains("dy"), "{error}");
    let dy = random_tensor([3, 64], 2, &compute.device);
    let residual = Some(random_tensor([3, 95], 2, &compute.device));
    let error = packed_linear_backward(dy, &weight, residual).unwrap_err().to_string();
    assert!(error.contains("residual"), "{error}");
}
