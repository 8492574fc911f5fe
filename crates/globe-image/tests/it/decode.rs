//! Decoded pixels against Pillow.

use globe_image::{DecodeLimits, Format, decode};

use crate::golden;

/// Our JPEG decoder and libjpeg-turbo round the inverse DCT and the colour transform differently.
/// Measured on these files; among a million samples of noise a few reach 3 levels.
const JPEG_LEVELS: u8 = 2;
/// With chroma subsampling they also interpolate chroma differently, and one level of chroma is
/// 1.77 levels of blue. Measured on these files; among a million samples of noise a few reach 5.
const JPEG_SUBSAMPLED_LEVELS: u8 = 3;
/// Mean over all samples: differences are isolated, not a shift.
const JPEG_MEAN_LEVELS: f64 = 0.5;
/// Lossy WebP is specified to the bit, and both decoders interpolate chroma alike.
const WEBP_LEVELS: u8 = 0;

fn allowed_levels(name: &str) -> u8 {
    match name {
        "420.jpg" | "422.jpg" | "progressive.jpg" | "restart.jpg" => JPEG_SUBSAMPLED_LEVELS,
        _ if name.starts_with("gps_") || name == "orientation_only.jpg" => JPEG_SUBSAMPLED_LEVELS,
        _ if name.ends_with(".jpg") => JPEG_LEVELS,
        _ => WEBP_LEVELS,
    }
}

#[test]
fn every_photo_decodes_as_in_pillow() {
    let photos = golden::photos();
    assert!(photos.len() > 40, "only {} golden photos", photos.len());
    let mut failures = Vec::new();
    for (name, expected) in &photos {
        let photo = decode(&golden::photo(name), &DecodeLimits::default())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!([photo.width, photo.height], [expected.width, expected.height], "{name}");
        assert_eq!(photo.stored_size, expected.stored_size, "{name}");
        assert_eq!(photo.exif_warning, None, "{name}");
        if !expected.lossy {
            if golden::sha256(&photo.rgb) != expected.sha256 {
                failures.push(format!("{name}: pixels differ from Pillow"));
            }
            continue;
        }
        let reference = golden::expected_rgb(name);
        assert_eq!(golden::sha256(&reference), expected.sha256, "{name}: golden files disagree");
        let (levels, mean) = golden::difference(name, &photo.rgb, &reference);
        println!("{name}: at most {levels} levels, {mean:.3} on average");
        if levels > allowed_levels(name) || mean > JPEG_MEAN_LEVELS {
            failures.push(format!("{name}: {levels} levels, {mean:.3} on average"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn format_comes_from_the_bytes() {
    let cases = [
        ("444.jpg", Format::Jpeg),
        ("rgb.png", Format::Png),
        ("lossless.webp", Format::WebP),
        ("plain.gif", Format::Gif),
    ];
    for (name, format) in cases {
        let photo = decode(&golden::photo(name), &DecodeLimits::default()).unwrap();
        assert_eq!(photo.format, Some(format), "{name}");
    }
}

#[test]
fn transparency_shows_the_chosen_background() {
    let bytes = golden::photo("rgba.png");
    let [white, black] = [[255; 3], [0; 3]].map(|background| {
        decode(&bytes, &DecodeLimits { background, ..DecodeLimits::default() }).unwrap().rgb
    });
    // The first pixel is fully transparent, the last opaque.
    assert_eq!((&white[..3], &black[..3]), (&[255; 3][..], &[0; 3][..]));
    assert_eq!(white[white.len() - 3..], black[black.len() - 3..]);
    assert!(white.iter().zip(&black).all(|(white, black)| white >= black));
}
