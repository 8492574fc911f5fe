//! Orientation and GPS position, against Pillow and against an independent EXIF reader.

use std::io::Cursor;

use ::exif::{Exif, In, Reader, Tag, Value};
use globe_image::{DecodeLimits, Gps, Photo, decode, upright_size};

use crate::golden;

/// A ten-thousandth of a second of arc, the precision the golden files are written with.
const DEGREES: f64 = 1e-9;

fn open(bytes: &[u8]) -> Photo {
    decode(bytes, &DecodeLimits::default()).unwrap()
}

#[test]
fn orientation_and_gps_equal_pillow() {
    let mut positions = 0;
    for (name, expected) in golden::photos() {
        let photo = open(&golden::photo(&name));
        assert_eq!(photo.orientation, expected.orientation, "{name}");
        let size = upright_size(&golden::photo(&name), &DecodeLimits::default()).unwrap();
        assert_eq!(size, [photo.height, photo.width], "{name}");
        assert_eq!(photo.gps.is_some(), expected.gps.is_some(), "{name}");
        if let (Some(got), Some([latitude, longitude])) = (photo.gps, expected.gps) {
            assert!((got.latitude - latitude).abs() < DEGREES, "{name}: {got:?}");
            assert!((got.longitude - longitude).abs() < DEGREES, "{name}: {got:?}");
            positions += 1;
        }
    }
    assert_eq!(positions, 5);
}

#[test]
fn orientation_and_gps_equal_kamadak_exif() {
    let mut read = 0;
    for name in golden::photos().into_keys() {
        let bytes = golden::photo(&name);
        let Ok(exif) = Reader::new().read_from_container(&mut Cursor::new(&bytes)) else {
            continue;
        };
        let photo = open(&bytes);
        let field = exif.get_field(Tag::Orientation, In::PRIMARY);
        let orientation = field.and_then(|field| field.value.get_uint(0)).unwrap_or(1);
        assert_eq!(u32::from(photo.orientation), orientation, "{name}");
        let latitude = degrees(&exif, Tag::GPSLatitude, Tag::GPSLatitudeRef);
        assert_eq!(photo.gps.map(|gps| gps.latitude), latitude, "{name}");
        let longitude = degrees(&exif, Tag::GPSLongitude, Tag::GPSLongitudeRef);
        assert_eq!(photo.gps.map(|gps| gps.longitude), longitude, "{name}");
        read += 1;
    }
    assert!(read >= 13, "only {read} files with EXIF");
}

fn degrees(exif: &Exif, tag: Tag, ref_tag: Tag) -> Option<f64> {
    let Value::Rational(parts) = &exif.get_field(tag, In::PRIMARY)?.value else { return None };
    let Value::Ascii(sign) = &exif.get_field(ref_tag, In::PRIMARY)?.value else { return None };
    let value = parts[0].to_f64() + parts[1].to_f64() / 60.0 + parts[2].to_f64() / 3600.0;
    Some(if matches!(sign[0][0], b'S' | b'W') { -value } else { value })
}

#[test]
fn famous_places() {
    let gps = |name: &str| open(&golden::photo(name)).gps.unwrap();
    let near = |got: Gps, latitude: f64, longitude: f64| {
        (got.latitude - latitude).abs() < 1e-6 && (got.longitude - longitude).abs() < 1e-6
    };
    assert!(near(gps("gps_north_east.jpg"), 48.858_222, 2.2945));
    assert!(near(gps("gps_south_west.jpg"), -22.951_916, -43.210_487));
}

/// A TIFF block in either byte order: `entries` are `(tag, type, count, value or offset)`.
fn directory(big: bool, entries: &[(u16, u16, u32, u32)]) -> Vec<u8> {
    let (short, long) = (
        |v: u16| if big { v.to_be_bytes() } else { v.to_le_bytes() },
        |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() },
    );
    let mut block = short(entries.len() as u16).to_vec();
    for &(tag, kind, count, value) in entries {
        block.extend([short(tag), short(kind)].concat());
        block.extend(long(count));
        // A SHORT stands in the first half of the field.
        match kind {
            3 => block.extend([short(value as u16), [0; 2]].concat()),
            _ => block.extend(long(value)),
        }
    }
    block.extend(long(0));
    block
}

/// A PNG with this EXIF block.
fn with_exif(header: &[u8], rest: &[u8]) -> Vec<u8> {
    let body = [header, rest].concat();
    let mut chunk = (body.len() as u32).to_be_bytes().to_vec();
    chunk.extend(b"eXIf");
    chunk.extend(&body);
    chunk.extend(png_checksum(&chunk[4..]));
    let mut png = golden::photo("rgb.png");
    png.splice(33..33, chunk); // behind the signature and IHDR
    png
}

fn png_checksum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    (!crc).to_be_bytes()
}

const LITTLE: &[u8] = b"II*\0\x08\0\0\0";
const BIG: &[u8] = b"MM\0*\0\0\0\x08";

#[test]
fn both_byte_orders() {
    for (big, header) in [(false, LITTLE), (true, BIG)] {
        let photo = open(&with_exif(header, &directory(big, &[(0x0112, 3, 1, 6)])));
        assert_eq!((photo.orientation, photo.exif_warning), (6, None), "big endian: {big}");
        assert_eq!([photo.width, photo.height], [13, 19]);
    }
}

#[test]
fn damaged_exif_is_a_warning_and_never_turns_the_photo() {
    let plain = open(&golden::photo("rgb.png"));
    let gps = 0x8825;
    let cases: [(&str, Vec<u8>); 7] = [
        ("no header", with_exif(b"", b"hello, world")),
        ("empty", with_exif(b"", b"")),
        ("orientation 9", with_exif(LITTLE, &directory(false, &[(0x0112, 3, 1, 9)]))),
        ("orientation as text", with_exif(LITTLE, &directory(false, &[(0x0112, 2, 1, 6)]))),
        ("directory cut", with_exif(LITTLE, &directory(false, &[(0x0112, 3, 1, 9)])[..9])),
        ("gps behind the end", with_exif(LITTLE, &directory(false, &[(gps, 4, 1, 9999)]))),
        ("directory far away", with_exif(b"II*\0\xff\xff\xff\xff", b"")),
    ];
    for (name, bytes) in cases {
        let photo = open(&bytes);
        assert!(photo.exif_warning.is_some(), "{name}: no warning");
        assert_eq!((photo.orientation, photo.gps), (1, None), "{name}");
        assert_eq!(photo.rgb, plain.rgb, "{name}");
    }
}

/// GPS directory at 26 behind the main one, with three rationals per coordinate behind it.
fn position(latitude_ref: u8, latitude: [[u32; 2]; 3]) -> Vec<u8> {
    let mut block = directory(false, &[(0x8825, 4, 1, 26)]);
    let data = 26 + 2 + 4 * 12 + 4;
    let (north, east) = (u32::from(latitude_ref), u32::from(b'E'));
    let entries = [(1, 2, 2, north), (2, 5, 3, data), (3, 2, 2, east), (4, 5, 3, data + 24)];
    block.extend(directory(false, &entries));
    for [numerator, denominator] in latitude.into_iter().chain([[7, 1], [30, 1], [0, 1]]) {
        block.extend([numerator.to_le_bytes(), denominator.to_le_bytes()].concat());
    }
    with_exif(LITTLE, &block)
}

#[test]
fn only_complete_positions_count() {
    let good = open(&position(b'S', [[33, 1], [15, 1], [0, 1]]));
    assert_eq!(good.gps, Some(Gps { latitude: -33.25, longitude: 7.5 }));
    assert_eq!(good.exif_warning, None);
    let cases = [
        ("hemisphere unknown", position(b'?', [[33, 1], [15, 1], [0, 1]])),
        ("zero denominator", position(b'N', [[33, 1], [15, 0], [0, 1]])),
        ("beyond the pole", position(b'N', [[90, 1], [1, 1], [0, 1]])),
    ];
    for (name, bytes) in cases {
        let photo = open(&bytes);
        assert_eq!(photo.gps, None, "{name}");
        assert!(photo.exif_warning.is_some(), "{name}: no warning");
    }
    // Phones without a fix write a directory that has no coordinates: nothing is wrong.
    let mut empty = directory(false, &[(0x8825, 4, 1, 26)]);
    empty.extend(directory(false, &[]));
    let photo = open(&with_exif(LITTLE, &empty));
    assert_eq!((photo.gps, photo.exif_warning), (None, None));
}
