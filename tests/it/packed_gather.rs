use globe_ops::{Compute, WeightFormat, packed_gather};
use globe_tests::{assert_close, gpu, indices, packed, packed_in_parts, random, values};

#[test]
fn matches_the_oracle() {
    let (rows, cols) = (50, 100);
    let table = random(rows * cols, 1);
    let ids = [49, 0, 7, 7, 33, 34, 20];
    for format in WeightFormat::ALL {
        let gather = |compute: &Compute, parts: usize| {
            let table = match parts {
                1 => packed(&table, rows, cols, format, compute),
                _ => packed_in_parts(&table, 34, cols, format, compute),
            };
            values(packed_gather(&table, indices(&ids, [ids.len()], &compute.device)))
        };
        let expected = gather(&Compute::cpu(), 1);
        assert_close(&format!("packed_gather {format:?}"), &gather(gpu(), 1), &expected, 0.0);
        assert_close(&format!("in parts {format:?}"), &gather(gpu(), 2), &expected, 0.0);
        assert_close(
            &format!("oracle in parts {format:?}"),
            &gather(&Compute::cpu(), 2),
            &expected,
            0.0,
        );
    }
}

/// The oracle itself against the reader of the format.
#[test]
fn the_oracle_unpacks_what_the_format_says() {
    let (rows, cols) = (9, 70);
    let values_of = |i: usize| (i as f32 * 0.37).sin() * 10f32.powi(i as i32 % 9 - 4);
    let table: Vec<f32> = (0..rows * cols).map(values_of).collect();
    for (format, stored) in [
        (WeightFormat::Q4, globe_format::WeightFormat::Q4),
        (WeightFormat::Q8, globe_format::WeightFormat::Q8),
        (WeightFormat::F16, globe_format::WeightFormat::F16),
        (WeightFormat::F32, globe_format::WeightFormat::F32),
    ] {
        let quantized = globe_format::quantize(stored, &table, rows, cols).unwrap();
        let (words, scales) = (&quantized.words, &quantized.scales);
        let expected = globe_format::dequantize(stored, words, scales, rows, cols).unwrap();
        let compute = Compute::cpu();
        let matrix = packed(&table, rows, cols, format, &compute);
        let ids: Vec<i32> = (0..rows as i32).collect();
        let got = values(packed_gather(&matrix, indices(&ids, [rows], &compute.device)));
        assert_eq!(got, expected, "{format:?}");
    }
}
