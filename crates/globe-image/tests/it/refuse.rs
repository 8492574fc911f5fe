//! Files that must be refused, and the errors they get.

use globe_image::{DecodeLimits, Error, Format, decode};

use crate::golden;

fn refuse(bytes: &[u8]) -> Error {
    decode(bytes, &DecodeLimits::default()).unwrap_err()
}

#[test]
fn empty_and_unknown() {
    assert!(matches!(refuse(b""), Error::Empty));
    let error = refuse(b"<html>not found</html>");
    assert!(
        matches!(&error, Error::UnknownFormat { head } if head.starts_with("3c 68 74")),
        "{error}"
    );
}

#[test]
fn known_but_unsupported_formats_are_named() {
    let cases: [(&[u8], &str); 6] = [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIC or AVIF"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"BM\x36\0\0\0", "BMP"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
    ];
    for (bytes, expected) in cases {
        let error = refuse(bytes);
        assert!(matches!(error, Error::UnsupportedFormat { name } if name == expected), "{error}");
        assert!(error.to_string().contains("convert it to JPEG"), "{error}");
    }
}

/// The golden PNG with another declared size; the checksum is corrected.
fn png_declaring(width: u32, height: u32) -> Vec<u8> {
    let mut png = golden::photo("rgb.png");
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let mut crc = u32::MAX;
    for byte in &png[12..29] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    png[29..33].copy_from_slice(&(!crc).to_be_bytes());
    png
}

#[test]
fn bombs_are_refused_by_declared_size() {
    let error = refuse(&png_declaring(30_000, 30_000));
    let expected = Error::TooManyPixels {
        format: Format::Png,
        width: 30_000,
        height: 30_000,
        pixels: 900_000_000,
        max_pixels: 100_000_000,
    };
    assert_eq!(error.to_string(), expected.to_string());
    assert!(error.to_string().contains("900000000 pixels, the limit is 100000000"), "{error}");

    // The JPEG frame header holds height and width behind the marker, length and precision.
    let mut jpeg = golden::photo("444.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    let error = refuse(&jpeg);
    assert!(matches!(error, Error::TooManyPixels { width: 65_535, height: 65_535, .. }), "{error}");

    let mut gif = golden::photo("plain.gif");
    gif[6..10].fill(0xff);
    let error = refuse(&gif);
    assert!(matches!(error, Error::TooManyPixels { format: Format::Gif, .. }), "{error}");

    // The canvas of an extended WebP: two 24-bit sizes less one.
    let mut webp = golden::photo("lossless_alpha.webp");
    if &webp[12..16] != b"VP8X" {
        webp = golden::photo("lossy_alpha.webp");
    }
    assert_eq!(&webp[12..16], b"VP8X");
    webp[24..30].copy_from_slice(&[0xff, 0xff, 0, 0xff, 0x7f, 0]);
    let error = refuse(&webp);
    assert!(matches!(error, Error::TooManyPixels { width: 65_536, height: 32_768, .. }), "{error}");
}

#[test]
fn sizes_beyond_any_memory_are_refused() {
    for (width, height) in [(0x7fff_ffff, 1), (0x7fff_ffff, 0x7fff_ffff), (1, 0x7fff_ffff)] {
        let error = refuse(&png_declaring(width, height));
        let refused = matches!(error, Error::TooManyPixels { .. } | Error::DecoderMemory { .. });
        assert!(refused, "{width}x{height}: {error}");
    }
}

#[test]
fn limits_are_parameters() {
    let bytes = golden::photo("progressive.jpg");
    let pixels = 45 * 35;
    // 48x48 samples of luma and twice 24x24 of chroma, with a coefficient of two bytes for each.
    let needed_bytes = 48 * 48 * 3 / 2 * 3;
    let tight = DecodeLimits { max_pixels: pixels, max_bytes: needed_bytes, ..Default::default() };
    assert!(decode(&bytes, &tight).is_ok());
    let error =
        decode(&bytes, &DecodeLimits { max_pixels: pixels - 1, ..tight.clone() }).unwrap_err();
    assert!(
        matches!(error, Error::TooManyPixels { pixels: 1575, max_pixels: 1574, .. }),
        "{error}"
    );
    let error = decode(&bytes, &DecodeLimits { max_bytes: needed_bytes - 1, ..tight }).unwrap_err();
    assert!(matches!(error, Error::TooMuchMemory { needed_bytes: 10_368, .. }), "{error}");
}

/// `444.jpg` with one byte of its frame segment replaced; 0 is the marker's code.
fn jpeg_with_frame_byte(offset: usize, value: u8) -> Vec<u8> {
    let mut jpeg = golden::photo("444.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 1 + offset] = value;
    jpeg
}

#[test]
fn rare_kinds_of_jpeg_are_named() {
    let cases = [
        (0, 0xc3, "lossless coding"),
        (0, 0xc9, "arithmetic coding"),
        (0, 0xca, "arithmetic coding"),
        (0, 0xc5, "hierarchical coding"),
        (3, 12, "12-bit samples"),
    ];
    for (offset, value, expected) in cases {
        let error = refuse(&jpeg_with_frame_byte(offset, value));
        assert!(
            matches!(&error, Error::UnsupportedJpeg { feature } if feature == expected),
            "{error}"
        );
        assert!(error.to_string().contains("convert it to a baseline JPEG or PNG"), "{error}");
    }
}

#[test]
fn invalid_jpeg_headers_are_damage() {
    let cases = [(10, 0x51, "sampling factor"), (11, 3, "table 3 is missing")];
    for (offset, value, expected) in cases {
        let error = refuse(&jpeg_with_frame_byte(offset, value));
        assert!(matches!(error, Error::Damaged { format: Format::Jpeg, .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// A file of many tiny scans must not take long.
#[test]
fn jpeg_scan_bombs_are_refused() {
    let jpeg = golden::photo("progressive_grey.jpg");
    let scan = jpeg.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
    let empty_refinement = b"\xff\xda\0\x08\x01\x01\0\0\0\x10";
    let bomb = [&jpeg[..scan], &empty_refinement.repeat(501), b"\xff\xd9"].concat();
    let error = refuse(&bomb);
    assert!(error.to_string().contains("more scans"), "{error}");
}

/// Bytes at the end that carry no pixels: checksums, end markers, metadata, later frames.
fn trailer_bytes(name: &str) -> usize {
    match name {
        // Adler checksum, CRC, and the 12 bytes of IEND.
        _ if name.ends_with(".png") => 4 + 4 + 12,
        // The trailer; the block terminator before it is required.
        _ if name.ends_with(".gif") => 1,
        _ => 0,
    }
}

#[test]
fn every_cut_is_an_error() {
    let names = [
        "444.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "gps_north_east.jpg",
        "rgb.png",
        "palette.png",
        "rgb16.png",
        "lossless.webp",
        "lossy.webp",
        "lossy_alpha.webp",
        "plain.gif",
    ];
    for name in names {
        let bytes = golden::photo(name);
        for len in 2..bytes.len() - trailer_bytes(name) {
            match decode(&bytes[..len], &DecodeLimits::default()) {
                Err(Error::Truncated { size_bytes, .. }) => assert_eq!(size_bytes, len, "{name}"),
                other => panic!("{name} cut to {len} of {} bytes: {other:?}", bytes.len()),
            }
        }
    }
}

#[test]
fn damage_inside_a_complete_file_is_told_apart() {
    let mut png = golden::photo("rgb.png");
    let data = png.windows(4).position(|kind| kind == b"IDAT").unwrap();
    png[data + 20] ^= 0xff;
    let error = refuse(&png);
    assert!(matches!(error, Error::Damaged { format: Format::Png, .. }), "{error}");
    let error = refuse(&png_declaring(0, 13));
    assert!(matches!(error, Error::Damaged { format: Format::Png, .. }), "{error}");
}
