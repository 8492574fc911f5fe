//! Resizing against Pillow: every bit of 245 results.

use globe_image::{Error, Filter, resize_rgb, smart_resize};

use crate::golden;

#[test]
fn resize_is_bit_exact() {
    let cases: Vec<(usize, usize, usize, usize, u8, String)> = golden::json("resize.json");
    assert!(cases.len() > 200, "only {} cases", cases.len());
    let mut failures = Vec::new();
    for (seed, (w, h, new_w, new_h, filter, expected)) in cases.iter().enumerate() {
        let filter = if *filter == 2 { Filter::Bilinear } else { Filter::Bicubic };
        let input = golden::noise(*w, *h, seed as u32);
        let got = resize_rgb(&input, [*w, *h], [*new_w, *new_h], filter).unwrap();
        assert_eq!(got.len(), new_w * new_h * 3);
        if golden::sha256(&got) != *expected {
            failures.push(format!("case {seed}: {w}x{h} to {new_w}x{new_h}, {filter:?}"));
        }
    }
    assert!(failures.is_empty(), "{} of {}: {failures:#?}", failures.len(), cases.len());
}

#[test]
fn flat_colour_stays_flat() {
    for value in [0, 1, 127, 254, 255] {
        let got = resize_rgb(&[value; 3 * 7 * 5], [7, 5], [28, 3], Filter::Bicubic).unwrap();
        assert!(got.iter().all(|&sample| sample == value), "{value}: {got:?}");
    }
}

#[test]
fn resize_refuses_data_of_the_wrong_length() {
    let got = resize_rgb(&[0; 11], [2, 2], [4, 4], Filter::Bicubic);
    assert!(matches!(got, Err(Error::PhotoSize { expected: 12, got: 11, .. })), "{got:?}");
}

#[test]
fn smart_resize_equals_transformers() {
    let cases: Vec<[usize; 7]> = golden::json("smart_resize.json");
    assert!(cases.len() > 400, "only {} cases", cases.len());
    for [height, width, factor, min, max, new_height, new_width] in cases {
        let got = smart_resize(height, width, factor, min, max).unwrap();
        assert_eq!(got, [new_height, new_width], "{height}x{width}, {factor}, {min}..{max}");
    }
}

#[test]
fn smart_resize_refuses_strips_and_nothing() {
    for (height, width) in [(1, 201), (201, 1), (0, 5), (5, 0), (0, 0)] {
        let got = smart_resize(height, width, 28, 3136, 1_003_520);
        assert!(matches!(got, Err(Error::AspectRatio { .. })), "{height}x{width}: {got:?}");
    }
    let got = smart_resize(28, 28, 28, 1, 0);
    assert!(matches!(got, Err(Error::PixelLimits { max_pixels: 0, .. })), "{got:?}");
}
