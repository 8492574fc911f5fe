//! Weight formats: exact where they can be, close where they cannot, never a panic.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use globe_format::{BLOCK, QuantError, WeightFormat, dequantize, quantize};
use half::f16;
use proptest::prelude::*;

use WeightFormat::{F16, F32, Q4, Q8};

fn round_trip(format: WeightFormat, values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let packed = quantize(format, values, rows, cols).expect("finite values");
    assert_eq!(packed.words.len(), rows * format.words_per_row(cols));
    assert_eq!(packed.scales.len(), rows * format.scales_per_row(cols));
    dequantize(format, &packed.words, &packed.scales, rows, cols).expect("sizes of quantize")
}

fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

/// Bell-shaped values with a few outliers, the same ones on every platform.
fn weights(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let bell = |u: &mut dyn FnMut() -> f32| (0..6).map(|_| u()).sum::<f32>() * 0.05;
    (0..n).map(|i| bell(&mut uniform) * if i % 97 == 0 { 4.0 } else { 1.0 }).collect()
}

/// The scale that maps the extreme value to the smallest integer, nothing searched.
fn absmax_error(block: &[f32], min: f32) -> f64 {
    let extreme = block.iter().fold(0.0_f32, |m, &x| if x.abs() > m.abs() { x } else { m });
    let d = f16::from_f32(extreme / min).to_f32();
    let q = |x: f32| if d == 0.0 { 0.0 } else { (x / d).round().clamp(min, -min - 1.0) };
    let stored: Vec<f32> = block.iter().map(|&x| q(x) * d).collect();
    squared_error(block, &stored)
}

#[test]
fn q4_words_hold_nibbles_in_their_places() {
    let mut row: Vec<f32> = (0..40).map(|v| (v % 16) as f32 - 8.0).collect();
    row[39] = -8.0; // so that the second block has the scale 1 as well
    let packed = quantize(Q4, &row, 1, 40).unwrap();
    // Values 0 to 3 in the low nibbles, 4 to 7 in the high ones.
    assert_eq!(packed.words[..4], [0x7362_5140, 0xfbea_d9c8, 0x7362_5140, 0xfbea_d9c8]);
    assert_eq!(packed.words[4], 0x0362_5140);
    assert_eq!(packed.words[5..], [0x8888_8888; 3], "padding is zero");
    let one = f16::ONE.to_bits();
    assert_eq!(packed.scales, [one, one, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn q8_and_f16_words_are_little_endian() {
    let row = [-128.0, 1.0, 2.0, 127.0];
    let packed = quantize(Q8, &row, 1, 4).unwrap();
    assert_eq!(packed.words[0], u32::from_le_bytes([0x80, 1, 2, 127]));
    assert_eq!((packed.words.len(), packed.scales[0]), (8, f16::ONE.to_bits()));
    let packed = quantize(F16, &[1.0, -2.0], 1, 2).unwrap();
    assert_eq!(packed.words[..2], [0xc000_3c00, 0]);
    assert!(packed.scales.is_empty());
    assert_eq!(quantize(F32, &[1.5], 1, 1).unwrap().words[..2], [1.5_f32.to_bits(), 0]);
}

#[test]
fn the_search_beats_the_extreme_value() {
    let values = weights(64 * 256, 1);
    for (format, min, share) in [(Q4, -8.0, 0.92), (Q8, -128.0, 0.92)] {
        let searched = squared_error(&values, &round_trip(format, &values, 64, 256));
        let plain: f64 = values.chunks(BLOCK).map(|block| absmax_error(block, min)).sum();
        assert!(searched < share * plain, "{format}: {searched:e} against {plain:e}");
    }
}

#[test]
fn zeros_and_values_below_every_scale_become_zero() {
    for format in WeightFormat::ALL {
        assert_eq!(round_trip(format, &[0.0, -0.0], 1, 2), [0.0, 0.0]);
    }
    for format in [Q4, Q8] {
        assert_eq!(round_trip(format, &[1e-9, -1e-45], 1, 2), [0.0, 0.0]);
        let tiny = f16::MIN_POSITIVE_SUBNORMAL.to_f32();
        assert_eq!(round_trip(format, &[tiny, -tiny], 1, 2), [tiny, -tiny]);
    }
}

#[test]
fn empty_matrices_are_empty() {
    for format in WeightFormat::ALL {
        assert!(round_trip(format, &[], 0, 5).is_empty());
        assert!(round_trip(format, &[], 5, 0).is_empty());
    }
}

#[test]
fn refused_values_are_named() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for format in WeightFormat::ALL {
            let mut values = weights(2 * 70, 2);
            values[70 + 65] = value;
            let error = quantize(format, &values, 2, 70).unwrap_err();
            assert!(matches!(error, QuantError::NotFinite { row: 1, col: 65, .. }), "{error}");
        }
    }
    for (format, limit) in [(Q4, 8.0 * 65504.0), (Q8, 128.0 * 65504.0), (F16, 65504.0)] {
        let got = round_trip(format, &[-limit, 0.0], 1, 2);
        assert_eq!(got, [-limit, 0.0], "{format}");
        assert!(round_trip(format, &[limit, 0.0], 1, 2)[0].is_finite());
        let error = quantize(format, &[limit * 1.01], 1, 1).unwrap_err();
        assert!(error.to_string().contains(&format!("beyond {format}")), "{error}");
    }
}

#[test]
fn wrong_sizes_are_refused() {
    let error = quantize(Q4, &[1.0; 5], 2, 3).unwrap_err();
    assert_eq!(error.to_string(), "values of a 2 x 3 q4 matrix: expected 6, got 5");
    let error = dequantize(Q4, &[0; 3], &[0; 8], 1, 32).unwrap_err();
    assert_eq!(error.to_string(), "words of a 1 x 32 q4 matrix: expected 4, got 3");
    let error = dequantize(Q8, &[0; 8], &[0; 1], 1, 32).unwrap_err();
    assert_eq!(error.to_string(), "scales of a 1 x 32 q8 matrix: expected 8, got 1");
    assert_eq!(WeightFormat::from_name("q4").unwrap().name(), "q4");
    assert_eq!(WeightFormat::from_name("q5"), None);
}

/// A positive normal f16 with a wide choice of exponents.
fn scale() -> impl Strategy<Value = f32> {
    (1_u16..0x5c00).prop_map(|bits| f16::from_bits(bits).to_f32())
}

fn integers(min: i32, max: i32) -> impl Strategy<Value = Vec<i32>> {
    (1_usize..100).prop_flat_map(move |n| prop::collection::vec(min..=max, n))
}

/// A block whose best 8-bit scales differ by less than sums in f32 can tell.
#[test]
fn close_scales_are_ranked_by_their_error() {
    let block = [
        -5.2346635,
        -4.0898614,
        9.20934,
        -6.731207,
        -8.016871,
        -2.9687877,
        4.298279,
        9.926132,
        0.9034933,
        -7.3546944,
        -3.7972124,
        3.7998173,
        2.5359836,
        -3.29784,
        -1.8706641,
        2.4325328,
        -6.7941756,
        7.1418815,
        8.228238,
        -8.084696,
        -5.5897713,
        5.7591424,
        -2.9996362,
        4.6796722f32,
    ];
    let searched = squared_error(&block, &round_trip(Q8, &block, 1, block.len()));
    assert!(searched <= absmax_error(&block, -128.0) * 1.0001, "{searched:e}");
}

proptest! {
    #[test]
    fn q4_stores_what_it_can_represent(q in integers(-8, 7), scale in scale(), flip: bool) {
        let scale = if flip { -scale } else { scale };
        let values: Vec<f32> = q.iter().map(|&q| q as f32 * scale).collect();
        prop_assert_eq!(round_trip(Q4, &values, 1, values.len()), values);
    }

    #[test]
    fn q8_stores_what_it_can_represent(q in integers(-128, 127), scale in scale(), flip: bool) {
        let scale = if flip { -scale } else { scale };
        let values: Vec<f32> = q.iter().map(|&q| q as f32 * scale).collect();
        prop_assert_eq!(round_trip(Q8, &values, 1, values.len()), values);
    }

    #[test]
    fn halves_and_floats_are_exact(bits in prop::collection::vec(any::<u16>(), 1..80)) {
        let values: Vec<f32> = bits.iter().map(|&bits| f16::from_bits(bits).to_f32()).collect();
        prop_assume!(values.iter().all(|x| x.is_finite()));
        prop_assert_eq!(&round_trip(F16, &values, 1, values.len()), &values);
        prop_assert_eq!(&round_trip(F32, &values, 1, values.len()), &values);
    }

    #[test]
    fn no_block_is_worse_than_with_the_extreme_value(
        block in prop::collection::vec(-10.0_f32..10.0, 1..=BLOCK),
        power in -12_i32..12,
    ) {
        let block: Vec<f32> = block.iter().map(|x| x * 2.0_f32.powi(power)).collect();
        for (format, min) in [(Q4, -8.0), (Q8, -128.0)] {
            let searched = squared_error(&block, &round_trip(format, &block, 1, block.len()));
            let plain = absmax_error(&block, min);
            // Scales are f16: the fitted one may lie half a step of 2^-11 beside its optimum.
            let rounding: f64 = block.iter().map(|x| (f64::from(*x) / 2048.0).powi(2)).sum();
            prop_assert!(searched <= plain + rounding, "{format}: {searched:e} > {plain:e}");
        }
    }

    #[test]
    fn rows_do_not_depend_on_each_other(rows in 1_usize..4, cols in 1_usize..70, seed: u32) {
        let values = weights(rows * cols, seed);
        for format in WeightFormat::ALL {
            let whole = quantize(format, &values, rows, cols).unwrap();
            prop_assert_eq!(&whole, &quantize(format, &values, rows, cols).unwrap());
            let single = values.chunks(cols).map(|row| quantize(format, row, 1, cols).unwrap());
            let (words, scales): (Vec<_>, Vec<_>) = single.map(|q| (q.words, q.scales)).unzip();
            prop_assert_eq!(&whole.words, &words.concat());
            prop_assert_eq!(&whole.scales, &scales.concat());
        }
    }

    #[test]
    fn any_floats_pack_or_are_refused(bits in prop::collection::vec(any::<u32>(), 1..70)) {
        let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        for format in WeightFormat::ALL {
            if let Ok(packed) = quantize(format, &values, 1, values.len()) {
                let back = dequantize(format, &packed.words, &packed.scales, 1, values.len());
                prop_assert!(back.unwrap().iter().all(|x| x.is_finite()));
            }
        }
    }
}
