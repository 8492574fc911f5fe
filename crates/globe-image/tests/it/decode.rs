//! Decoded pixels against Pillow.

use globe_image::{DecodeLimits, Format, decode};

use crate::golden;

#[test]
fn every_photo_decodes_as_in_pillow() {
    let photos = golden::photos();
    assert!(photos.len() > 90, "only {} golden photos", photos.len());
    let mut failures = Vec::new();
    for (name, expected) in &photos {
        let photo = decode(&golden::photo(name), &DecodeLimits::default())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!([photo.width, photo.height], [expected.width, expected.height], "{name}");
        assert_eq!(photo.stored_size, expected.stored_size, "{name}");
        assert_eq!(photo.exif_warning, None, "{name}");
        if golden::sha256(&photo.rgb) != expected.sha256 {
            failures.push(format!("{name}: pixels differ from Pillow"));
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
