//! No input makes the decoder panic, exceed its limits or return inconsistent photos.

use globe_image::{DecodeLimits, PreprocessorConfig, decode, preprocess};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::golden;

/// Small limits keep each case fast; mutated headers often declare huge sizes.
fn limits() -> DecodeLimits {
    DecodeLimits { max_pixels: 1 << 20, max_bytes: 1 << 24, ..DecodeLimits::default() }
}

fn check(bytes: &[u8]) {
    let Ok(photo) = decode(bytes, &limits()) else { return };
    assert_eq!(photo.rgb.len(), photo.width * photo.height * 3);
    assert!(photo.width * photo.height <= 1 << 20);
    assert!((1..=8).contains(&photo.orientation));
    if let Some(gps) = photo.gps {
        assert!(gps.latitude.abs() <= 90.0 && gps.longitude.abs() <= 180.0, "{gps:?}");
    }
}

fn names() -> Vec<String> {
    golden::photos().into_keys().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        check(&bytes);
    }

    #[test]
    fn arbitrary_bytes_behind_a_signature(
        signature in select(vec![&b"\xff\xd8\xff"[..], b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\xf0\0\0\0WEBPVP8L", b"RIFF\xf0\0\0\0WEBPVP8 ", b"RIFF\xf0\0\0\0WEBPVP8X\x0a\0\0\0"]),
        bytes in prop::collection::vec(any::<u8>(), 0..512),
    ) {
        check(&[signature, &bytes].concat());
    }

    #[test]
    fn mutated_photos(
        name in select(names()),
        edits in prop::collection::vec((any::<Index>(), any::<u8>()), 1..12),
    ) {
        let mut bytes = golden::photo(&name);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check(&bytes);
    }

    #[test]
    fn spliced_photos(
        name in select(names()),
        cut in any::<(Index, Index)>(),
        insert in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = golden::photo(&name);
        let (a, b) = (cut.0.index(bytes.len()), cut.1.index(bytes.len()));
        bytes.splice(a.min(b)..a.max(b), insert);
        check(&bytes);
    }

    /// Only the EXIF segment changes, so the photo must always decode.
    #[test]
    fn mutated_exif_never_fails_the_photo(
        edits in prop::collection::vec((any::<Index>(), any::<u8>()), 1..24),
    ) {
        let mut bytes = golden::photo("gps_south_west.jpg");
        let start = bytes.windows(6).position(|window| window == b"Exif\0\0").unwrap();
        let length = usize::from(u16::from_be_bytes([bytes[start - 2], bytes[start - 1]]));
        for (at, value) in edits {
            bytes[start + at.index(length - 2)] = value;
        }
        let photo = decode(&bytes, &limits());
        prop_assert!(photo.is_ok(), "{:?}", photo);
        check(&bytes);
    }

    /// The EXIF block is replaced by noise in both byte orders.
    #[test]
    fn arbitrary_exif_never_fails_the_photo(
        header in select(vec![&b""[..], b"II*\0", b"MM\0*", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let jpeg = golden::photo("444.jpg");
        let body = [b"Exif\0\0", header, &noise].concat();
        let length = (body.len() as u16 + 2).to_be_bytes();
        let bytes = [&jpeg[..2], b"\xff\xe1", &length, &body, &jpeg[2..]].concat();
        prop_assert!(decode(&bytes, &limits()).is_ok());
        check(&bytes);
    }

    /// Every size either has patches of the promised shape or a typed error.
    #[test]
    fn patches_have_the_promised_shape(width in 1_usize..300, height in 1_usize..300, max in 3136_usize..60_000) {
        let photo = globe_image::Photo::from_rgb(width, height, golden::noise(width, height, 3)).unwrap();
        let config = PreprocessorConfig::default();
        match preprocess(&photo, &config, Some(max)) {
            Ok(patches) => {
                let [_, rows, cols] = patches.grid_thw;
                prop_assert!(rows % 2 == 0 && cols % 2 == 0 && rows * cols >= 4);
                prop_assert_eq!(patches.pixel_values.len(), rows * cols * 1176);
            }
            Err(error) => prop_assert!(width.max(height) > 200 * width.min(height), "{}", error),
        }
    }
}
