//! Everything that can be wrong with a photo or a preprocessor configuration.

use crate::container::Format;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// What was refused, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Pass the bytes of an image file; an upload or download may have failed.
    #[error("image is empty (0 bytes): pass the bytes of a JPEG, PNG, WebP or GIF file")]
    Empty,
    /// The bytes start like no known image; check that this is the file that was meant.
    #[error("unknown image format, first bytes are [{head}]: use a JPEG, PNG, WebP or GIF file")]
    UnknownFormat {
        /// The first bytes in hexadecimal.
        head: String,
    },
    /// A known format that is not decoded here; convert the file.
    #[error("{name} images are not supported: convert it to JPEG")]
    UnsupportedFormat {
        /// Common name of the format, such as `HEIC`.
        name: &'static str,
    },
    /// Refused by the declared size, before decoding; shrink the image or raise the limit.
    #[error(
        "{format} declares {width}x{height} = {pixels} pixels, the limit is {max_pixels}: \
         shrink the image or raise max_pixels of the decode limits"
    )]
    TooManyPixels {
        /// Container format.
        format: Format,
        /// Declared width in pixels.
        width: u32,
        /// Declared height in pixels.
        height: u32,
        /// `width * height`.
        pixels: u64,
        /// [`crate::DecodeLimits::max_pixels`].
        max_pixels: u64,
    },
    /// Refused by the estimated working memory, before decoding; shrink the image or raise the limit.
    #[error(
        "decoding this {width}x{height} {format} needs about {needed_bytes} bytes, the limit is \
         {max_bytes}: shrink the image or raise max_bytes of the decode limits"
    )]
    TooMuchMemory {
        /// Container format.
        format: Format,
        /// Declared width in pixels.
        width: u32,
        /// Declared height in pixels.
        height: u32,
        /// Estimated peak of the pixel buffers in bytes.
        needed_bytes: u64,
        /// [`crate::DecodeLimits::max_bytes`].
        max_bytes: u64,
    },
    /// A decoder met the memory limit in data other than the pixels; re-save the file or raise the limit.
    #[error(
        "{format} decoder stopped at the limit of {max_bytes} bytes: \
         save the image again without metadata or raise max_bytes of the decode limits"
    )]
    DecoderMemory {
        /// Container format.
        format: Format,
        /// [`crate::DecodeLimits::max_bytes`].
        max_bytes: u64,
    },
    /// The file ends early; fetch it again.
    #[error("{format} file of {size_bytes} bytes ends before its image does: transfer it again")]
    Truncated {
        /// Container format.
        format: Format,
        /// Number of bytes that were passed.
        size_bytes: usize,
    },
    /// The file is complete but its content is invalid or uses an unsupported feature; re-save it.
    #[error(
        "{format} file cannot be decoded ({reason}): open it in an image editor and save it again"
    )]
    Damaged {
        /// Container format.
        format: Format,
        /// The decoder's own words.
        reason: String,
    },
    /// A JPEG of a rare kind that is not decoded here; convert the file.
    #[error(
        "this JPEG uses {feature}, which is not supported: convert it to a baseline JPEG or PNG"
    )]
    UnsupportedJpeg {
        /// What the file uses, such as `arithmetic coding`.
        feature: String,
    },
    /// Pixel data does not match the stated size; a caller's bug.
    #[error(
        "photo of {width}x{height} needs {expected} bytes of RGB, got {got}: pass width * height * 3"
    )]
    PhotoSize {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// `width * height * 3`.
        expected: usize,
        /// Length of the data in bytes.
        got: usize,
    },
    /// The model cannot use so narrow an image; crop it.
    #[error("image of {width}x{height} has an aspect ratio above 200: crop it")]
    AspectRatio {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// Without resizing the image must already fit the patch grid; enable `do_resize`.
    #[error(
        "image of {width}x{height} is not a multiple of {factor} and do_resize is off: \
         enable do_resize or pass a fitting image"
    )]
    NotDivisible {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// `patch_size * merge_size` in pixels.
        factor: usize,
    },
    /// No size satisfies both limits; raise `max_pixels`.
    #[error("max_pixels {max_pixels} is below {floor} ({why}): raise max_pixels")]
    PixelLimits {
        /// The limit in force, in pixels.
        max_pixels: usize,
        /// The smallest limit that can work, in pixels.
        floor: usize,
        /// Where `floor` comes from.
        why: &'static str,
    },
    /// A field of the preprocessor configuration is wrong; correct the file.
    #[error("preprocessor config: `{field}` {problem}")]
    Config {
        /// Name of the field as in the JSON file.
        field: &'static str,
        /// What is wrong with it and what is expected.
        problem: String,
    },
    /// The preprocessor configuration is not JSON; check that the right file was passed.
    #[error("preprocessor config is not valid JSON: {0}")]
    ConfigJson(#[from] serde_json::Error),
}
