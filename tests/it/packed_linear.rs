use globe_ops::{Compute, Fused, Tensor, Variant, WeightFormat, packed_linear};
use globe_tests::{
    assert_close, gpu, packed, packed_in_parts, random, random_tensor, values, variants,
};

use crate::SUM_TOL;

/// Of the largest output, for sums over 96 inputs that are each off by at most 1/254.
const DOT_TOL: f32 = 2e-2;

#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    cols: usize,
    outputs: usize,
    bias: bool,
    norm: bool,
    residual: bool,
    swiglu: bool,
}

fn product(case: &Case, format: WeightFormat, compute: &Compute) -> Vec<f32> {
    product_in_parts(case, case.outputs, format, compute)
}

/// The same by a matrix in parts of so many rows.
fn product_in_parts(
    case: &Case,
    part_rows: usize,
    format: WeightFormat,
    compute: &Compute,
) -> Vec<f32> {
    let Case { rows, cols, outputs, .. } = *case;
    let device = &compute.device;
    let weight = packed_in_parts(&random(outputs * cols, 2), part_rows, cols, format, compute);
    let x = random_tensor([rows, cols], 1, device);
    let bias: Tensor<1> = random_tensor([outputs], 3, device);
    let norm: Tensor<1> = random_tensor([cols], 4, device);
    let width = if case.swiglu { outputs / 2 } else { outputs };
    let fused = Fused {
        norm: case.norm.then_some((&norm, 1e-3)),
        residual: case.residual.then(|| random_tensor([rows, width], 5, device)),
        swiglu: case.swiglu,
    };
    values(packed_linear(x, &weight, case.bias.then_some(&bias), fused).unwrap())
}

fn check(case: &Case, format: WeightFormat) {
    for &variant in variants() {
        // The oracle knows of the variant what it rounds.
        let expected = product(case, format, &Compute::cpu().with_variant(variant));
        let compute = gpu().clone().with_variant(variant);
        let what = format!(
            "packed_linear {format:?} {variant:?} {}x{} to {}, norm {} swiglu {}",
            case.rows, case.cols, case.outputs, case.norm, case.swiglu
        );
        assert_close(&what, &product(case, format, &compute), &expected, SUM_TOL);
    }
}

const PLAIN: Case = Case {
    rows: 1,
    cols: 64,
    outputs: 48,
    bias: false,
    norm: false,
    residual: false,
    swiglu: false,
};

#[test]
fn matches_the_oracle_at_awkward_sizes() {
    for format in WeightFormat::ALL {
        for (rows, cols, outputs) in [
            (1, 32, 1),
            (1, 85, 7),
            (1, 1280, 33),
            (2, 896, 70),
            (4, 172, 64),
            (5, 64, 31),
            (13, 96, 130),
            (16, 320, 65),
            (17, 320, 65),
            (32, 320, 65),
            (33, 320, 65),
            (65, 96, 63),
            (130, 40, 129),
            // By packed_linear_many_lanes.wgsl, where there are lanes.
            (16, 320, 128),
            (31, 85, 97),
            (32, 320, 200),
            (100, 96, 256),
        ] {
            check(&Case { rows, cols, outputs, ..PLAIN }, format);
        }
    }
}

#[test]
fn what_stands_around_the_product_matches_the_oracle() {
    let few = [1, 3, 8, 21, 32, 33].map(|rows| (rows, 70));
    // By packed_linear_many_lanes.wgsl, where there are lanes.
    let many = [(16, 120), (31, 120)];
    for (rows, outputs) in few.into_iter().chain(many) {
        for bits in 0..16u32 {
            let has = |bit: u32| bits >> bit & 1 == 1;
            let (bias, norm, residual, swiglu) = (has(0), has(1), has(2), has(3));
            let case = Case { rows, cols: 100, outputs, bias, norm, residual, swiglu };
            check(&case, WeightFormat::Q4);
            check(&case, WeightFormat::F32);
        }
    }
}

#[test]
fn variants_that_round_keep_eleven_bits_and_their_range() {
    let (rows, cols, outputs) = (33, 64, 33);
    let cpu = Compute::cpu();
    for (x_scale, weight_scale) in [(1.0, 1.0), (1e6, 1.0), (1.0, 500.0), (1e-2, 1e-2)] {
        let weights: Vec<f32> =
            random(outputs * cols, 2).iter().map(|weight| weight * weight_scale).collect();
        let product = |compute: &Compute| {
            let weight = packed(&weights, outputs, cols, WeightFormat::F32, compute);
            let x = random_tensor([rows, cols], 1, &compute.device).mul_scalar(x_scale);
            let y = packed_linear(x, &weight, None, Fused::default()).unwrap();
            values(y.div_scalar(x_scale * weight_scale))
        };
        let expected = product(&cpu);
        for &variant in variants().iter().filter(|variant| variant.rounds_tiles()) {
            let what = format!("{variant:?}, inputs by {x_scale}, weights by {weight_scale}");
            let rounded = product(&gpu().clone().with_variant(variant));
            assert_close(&what, &rounded, &expected, 1e-3);
            assert_ne!(rounded, expected, "{what}");
        }
    }
}

/// Against the product that rounds nothing: an input of 8 bits is off by at most 1/254 of the largest of its block.
#[test]
fn integers_of_eight_bits_are_near_and_zeros_stay_zeros() {
    let (rows, cols, outputs) = (3, 96, 33);
    for format in [WeightFormat::Q4, WeightFormat::Q8] {
        let case = Case { rows, cols, outputs, norm: true, ..PLAIN };
        let exact = product(&case, format, &Compute::cpu().with_variant(Variant::Teams));
        let dot = gpu().clone().with_variant(Variant::PackedDot);
        let rounded = product(&case, format, &dot);
        assert_close(&format!("packed_dot {format:?}"), &rounded, &exact, DOT_TOL);
        assert_ne!(rounded, exact);
        let weight = packed(&random(outputs * cols, 2), outputs, cols, format, &dot);
        let nothing = Tensor::zeros([rows, cols], &dot.device);
        let y = packed_linear(nothing, &weight, None, Fused::default()).unwrap();
        assert_eq!(values(y), vec![0.0; rows * outputs]);
    }
}

#[test]
fn a_matrix_in_parts_is_one_matrix() {
    for (outputs, part_rows) in [(100, 34), (256, 128)] {
        for rows in [1, 3, 16, 33, 65] {
            let case = Case { rows, outputs, ..PLAIN };
            check_parts(&case, part_rows);
            check_parts(&Case { bias: true, residual: true, ..case }, part_rows);
            check_parts(&Case { swiglu: true, ..case }, part_rows);
            check_parts(&Case { norm: true, ..case }, part_rows);
        }
    }
}

/// Parts change no bit.
fn check_parts(case: &Case, part_rows: usize) {
    for &variant in variants() {
        let compute = gpu().clone().with_variant(variant);
        let whole = product(case, WeightFormat::Q8, &compute);
        let parts = product_in_parts(case, part_rows, WeightFormat::Q8, &compute);
        assert_eq!(whole, parts, "{variant:?} {case:?} in parts of {part_rows}");
    }
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let compute = Compute::cpu().with_variant(Variant::Teams);
    let weight = packed(&random(6 * 64, 2), 6, 64, WeightFormat::Q4, &compute);
    let x = random_tensor([2, 63], 1, &compute.device);
    let error = packed_linear(x, &weight, None, Fused::default()).unwrap_err();
    assert_eq!(error.to_string(), "packed_linear: `x` should have shape [2, 64], got [2, 63]");
}
