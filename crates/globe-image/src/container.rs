//! File formats by their first bytes, and a walk over their segments for EXIF and completeness.
//!
//! The decoders hide two things we need: a JPEG cut short decodes to grey, as in libjpeg, and a PNG may
//! carry its EXIF after the pixels. Both are visible in the segment headers, without decoding.

use std::fmt;

use crate::error::{Error, Result};

/// Image formats that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Baseline or progressive JPEG; grey, YCbCr, RGB, CMYK or YCCK.
    Jpeg,
    /// PNG of any colour type and depth; of an animation, the default image.
    Png,
    /// WebP, lossy or lossless; of an animation, the first frame.
    WebP,
    /// GIF, first frame.
    Gif,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
        })
    }
}

/// What the segment headers say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scan<'a> {
    /// TIFF block of the EXIF data, without the `Exif\0\0` prefix.
    pub exif: Option<&'a [u8]>,
    /// False if the file certainly ends too early.
    pub complete: bool,
}

const EXIF_PREFIX: &[u8] = b"Exif\0\0";
const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The format of `bytes`, by signature; file names are never consulted.
pub(crate) fn sniff(bytes: &[u8]) -> Result<Format> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    let riff_kind = if bytes.starts_with(b"RIFF") { bytes.get(8..12) } else { None };
    if bytes.starts_with(b"\xff\xd8\xff") {
        Ok(Format::Jpeg)
    } else if bytes.starts_with(PNG_SIGNATURE) {
        Ok(Format::Png)
    } else if riff_kind == Some(b"WEBP") {
        Ok(Format::WebP)
    } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        Ok(Format::Gif)
    } else if let Some(format) = cut_signature(bytes) {
        Err(Error::Truncated { format, size_bytes: bytes.len() })
    } else if let Some(name) = unsupported(bytes) {
        Err(Error::UnsupportedFormat { name })
    } else {
        let head: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
        Err(Error::UnknownFormat { head: head.join(" ") })
    }
}

/// A file that ends inside its own signature. One byte is no evidence, two are.
fn cut_signature(bytes: &[u8]) -> Option<Format> {
    let is_start_of = |signature: &[u8]| bytes.len() > 1 && signature.starts_with(bytes);
    match () {
        () if is_start_of(b"\xff\xd8") => Some(Format::Jpeg),
        () if is_start_of(PNG_SIGNATURE) => Some(Format::Png),
        () if is_start_of(b"GIF89a") || is_start_of(b"GIF87a") => Some(Format::Gif),
        () if is_start_of(b"RIFF") => Some(Format::WebP),
        () if bytes.starts_with(b"RIFF") && bytes.len() < 12 => Some(Format::WebP),
        () => None,
    }
}

/// Formats people do try: a clear name is worth more than "unknown".
fn unsupported(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8) == Some(b"ftyp") {
        // ISO base media: the brand tells the codec, mif1 and msf1 leave it open.
        return match bytes.get(8..12)? {
            b"avif" | b"avis" => Some("AVIF"),
            b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" => Some("HEIC"),
            b"mif1" | b"msf1" => Some("HEIC or AVIF"),
            _ => None,
        };
    }
    let table: [(&[u8], &str); 6] = [
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"BM", "BMP"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL ", "JPEG XL"),
        (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    ];
    table.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| *name)
}

/// Walks the segments of a file whose signature has been checked.
pub(crate) fn scan(format: Format, bytes: &[u8]) -> Scan<'_> {
    match format {
        Format::Jpeg => scan_jpeg(bytes),
        Format::Png => scan_png(bytes),
        Format::WebP => scan_webp(bytes),
        Format::Gif => {
            let complete = first_gif_image(bytes).is_some();
            Scan { exif: None, complete }
        }
    }
}

/// Complete means: an end marker stands where markers stand. As in Pillow, a scan that merely
/// happens to fill the image does not count.
fn scan_jpeg(bytes: &[u8]) -> Scan<'_> {
    let mut found = Scan { exif: None, complete: false };
    let mut pos = 2;
    while let Some((marker, start)) = next_marker(bytes, pos) {
        if marker == 0xd9 {
            found.complete = true;
            break;
        }
        let Some(body) = segment_body(bytes, start) else { break };
        pos = start + 2 + body.len();
        match marker {
            0xe1 if found.exif.is_none() => found.exif = body.strip_prefix(EXIF_PREFIX),
            _ => {}
        }
    }
    found
}

/// The next marker at or after `pos` that opens a segment or ends the image, and the position
/// behind it. Skips entropy-coded data: there 0xff is followed by 0 or by a restart marker.
fn next_marker(bytes: &[u8], mut pos: usize) -> Option<(u8, usize)> {
    loop {
        pos += bytes.get(pos..)?.iter().position(|&b| b == 0xff)? + 1;
        match *bytes.get(pos)? {
            0x00 | 0x01 | 0xd0..=0xd8 => pos += 1,
            0xff => {} // fill byte: it may itself open the marker
            marker => return Some((marker, pos + 1)),
        }
    }
}

/// The content behind a big-endian 16-bit length that counts itself.
fn segment_body(bytes: &[u8], start: usize) -> Option<&[u8]> {
    let length = bytes.get(start..start + 2)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    bytes.get(start + 2..start + length)
}

fn scan_png(bytes: &[u8]) -> Scan<'_> {
    let mut exif = None;
    let mut rest = &bytes[PNG_SIGNATURE.len()..];
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(body) = tail.get(..length) else { break };
        if &head[4..] == b"eXIf" {
            exif = Some(body.strip_prefix(EXIF_PREFIX).unwrap_or(body));
        }
        let Some(next) = tail.get(length.saturating_add(4)..) else { break }; // 4: checksum
        rest = next;
    }
    // The decoder reports missing pixels itself.
    Scan { exif, complete: true }
}

fn scan_webp(bytes: &[u8]) -> Scan<'_> {
    let declared = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
    let complete = declared <= bytes.len() - 8; // sniff has seen 12 bytes
    let mut exif = None;
    let mut rest = &bytes[12..];
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some(body) = tail.get(..length) else { break };
        if &head[..4] == b"EXIF" {
            exif = Some(body.strip_prefix(EXIF_PREFIX).unwrap_or(body));
        }
        let Some(next) = tail.get(length + length % 2..) else { break }; // chunks are padded to even
        rest = next;
    }
    Scan { exif, complete }
}

/// The bytes behind the first image of a GIF; `None` if the file ends before them.
fn first_gif_image(bytes: &[u8]) -> Option<&[u8]> {
    let color_table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let (screen, mut rest) = bytes.get(6..)?.split_at_checked(7)?;
    rest = rest.get(color_table(screen[4])..)?;
    loop {
        let (&introducer, tail) = rest.split_first()?;
        match introducer {
            b'!' => rest = skip_sub_blocks(tail.get(1..)?)?, // 1: kind of extension
            b',' => {
                let (image, tail) = tail.split_at_checked(9)?;
                return skip_sub_blocks(tail.get(color_table(image[8]) + 1..)?); // 1: code size
            }
            _ => return Some(rest), // no image at all: the decoder has a better message
        }
    }
}

/// The bytes behind a chain of length-prefixed blocks, which an empty block ends.
fn skip_sub_blocks(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (&length, tail) = rest.split_first()?;
        rest = tail.get(usize::from(length)..)?;
        if length == 0 {
            return Some(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jpeg_end_marker_inside_a_segment_is_not_an_end() {
        // A thumbnail in APP1 carries its own end marker.
        let inside = b"\xff\xd8\xff\xe1\0\x06\xff\xd8\xff\xd9";
        assert!(!scan_jpeg(inside).complete);
        let scan_data = b"\xff\xd8\xff\xda\0\x02\x12\xff\0\xff\xd0\x34\xff\xff\xd9";
        assert!(scan_jpeg(scan_data).complete);
    }

    #[test]
    fn short_signatures_are_truncated_files() {
        for (bytes, format) in [
            (&b"\xff\xd8"[..], Format::Jpeg),
            (b"\x89PN", Format::Png),
            (b"RIFF\0\0", Format::WebP),
        ] {
            match sniff(bytes) {
                Err(Error::Truncated { format: got, .. }) => assert_eq!(got, format),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
    }
}
