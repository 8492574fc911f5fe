//! Image bytes to an upright RGB photo, refusing by declared size before any pixel is decoded.

use std::io::{Cursor, ErrorKind};

use image::codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{DynamicImage, ImageDecoder, ImageError, Limits, RgbImage};

use crate::container::{self, Format, Scan};
use crate::error::{Error, Result};
use crate::exif::{self, Gps};
use crate::jpeg::Jpeg;
use crate::pixels;

/// What [`decode`] accepts and how it flattens transparency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Largest declared `width * height` in pixels. Default: 100 million.
    pub max_pixels: u64,
    /// Largest estimated peak of the pixel buffers in bytes. Default: 1 GiB.
    pub max_bytes: u64,
    /// RGB shown through transparent pixels. Default: white, as in current `transformers`; versions
    /// before it composited dropped the alpha channel, which shows whatever lies under it.
    pub background: [u8; 3],
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max_pixels: 100_000_000, max_bytes: 1 << 30, background: [255; 3] }
    }
}

/// A decoded photo: upright, opaque, 8 bits per channel. Colour profiles are not applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Photo {
    /// Width in pixels, after orientation.
    pub width: usize,
    /// Height in pixels, after orientation.
    pub height: usize,
    /// `[height, width, 3]`, row-major.
    pub rgb: Vec<u8>,
    /// Format of the file; `None` for [`Photo::from_rgb`].
    pub format: Option<Format>,
    /// Width and height as stored in the file, before orientation, in pixels.
    pub stored_size: [usize; 2],
    /// EXIF orientation that has been applied, 1 (none) to 8.
    pub orientation: u8,
    /// Where the photo was taken, for the caller to show; it never influences pixels.
    pub gps: Option<Gps>,
    /// Why EXIF data was ignored, in part or whole.
    pub exif_warning: Option<&'static str>,
}

impl Photo {
    /// A photo from pixels that are already decoded. `rgb: [height, width, 3]`.
    ///
    /// # Errors
    /// [`Error::PhotoSize`] if `rgb` is empty or its length is not `width * height * 3`.
    pub fn from_rgb(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self> {
        let photo = Self {
            width,
            height,
            rgb,
            format: None,
            stored_size: [width, height],
            orientation: 1,
            gps: None,
            exif_warning: None,
        };
        photo.check()?;
        Ok(photo)
    }

    /// Fails unless the fields agree; they are public, so a caller may have changed them.
    pub(crate) fn check(&self) -> Result<()> {
        let (width, height, got) = (self.width, self.height, self.rgb.len());
        let expected = width.saturating_mul(height).saturating_mul(3);
        if got == 0 || got != expected {
            return Err(Error::PhotoSize { width, height, expected, got });
        }
        Ok(())
    }
}

/// Decodes a JPEG, PNG, WebP or GIF file (first frame) and turns it upright by its EXIF.
///
/// # Errors
/// Wrong, oversized, truncated or damaged files; never because of EXIF data.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Photo> {
    let format = container::sniff(bytes)?;
    let scan = container::scan(format, bytes);
    let source = Source { format, scan: &scan, limits, size_bytes: bytes.len() };
    let reader = Cursor::new(bytes);
    // Creating a decoder reads headers only.
    let image = match format {
        Format::Jpeg => source.read_jpeg(bytes),
        Format::Png => source.read(PngDecoder::with_limits(reader, source.decoder_limits())),
        Format::WebP => source.read(WebPDecoder::new(reader)),
        Format::Gif => source.read(GifDecoder::new(reader)),
    }?;

    let (width, height) = (image.width(), image.height());
    let exif = exif::read(scan.exif);
    let rgb = pixels::to_rgb(image, limits.background);
    let (upright_width, upright_height, rgb) =
        pixels::upright(rgb, width, height, exif.orientation);
    Ok(Photo {
        width: upright_width as usize,
        height: upright_height as usize,
        rgb,
        format: Some(format),
        stored_size: [width as usize, height as usize],
        orientation: exif.orientation,
        gps: exif.gps,
        exif_warning: exif.warning,
    })
}

/// Height and width in pixels that [`decode`] would give, read from the headers alone.
///
/// # Errors
/// Wrong or damaged files, as far as their headers show it.
pub fn upright_size(bytes: &[u8], limits: &DecodeLimits) -> Result<[usize; 2]> {
    let format = container::sniff(bytes)?;
    let scan = container::scan(format, bytes);
    let source = Source { format, scan: &scan, limits, size_bytes: bytes.len() };
    let reader = Cursor::new(bytes);
    let (width, height) = match format {
        Format::Jpeg => Jpeg::open(bytes).map(|jpeg| jpeg.size().into()),
        Format::Png => source.size(PngDecoder::with_limits(reader, source.decoder_limits())),
        Format::WebP => source.size(WebPDecoder::new(reader)),
        Format::Gif => source.size(GifDecoder::new(reader)),
    }?;
    source.check_declared(width, height, 0)?;
    let (width, height) = (width as usize, height as usize);
    // Orientations from 5 on lie on their side.
    let turned = exif::read(scan.exif).orientation >= 5;
    Ok(if turned { [width, height] } else { [height, width] })
}

/// What the checks and error messages of one file need.
struct Source<'a> {
    format: Format,
    scan: &'a Scan<'a>,
    limits: &'a DecodeLimits,
    size_bytes: usize,
}

impl Source<'_> {
    fn read<D: ImageDecoder>(
        &self,
        decoder: std::result::Result<D, ImageError>,
    ) -> Result<DynamicImage> {
        let mut decoder = decoder.map_err(|error| self.explain(error))?;
        let (width, height) = decoder.dimensions();
        // The decoded pixels and one RGB copy (conversion or rotation).
        let bytes_per_pixel = u64::from(decoder.color_type().bytes_per_pixel()) + 3;
        let pixels = u64::from(width) * u64::from(height);
        let needed_bytes = pixels.saturating_mul(bytes_per_pixel);
        self.check_declared(width, height, needed_bytes)?;
        if !self.scan.complete {
            return Err(self.truncated());
        }
        decoder.set_limits(self.decoder_limits()).map_err(|error| self.explain(error))?;
        DynamicImage::from_decoder(decoder).map_err(|error| self.explain(error))
    }

    fn size<D: ImageDecoder>(
        &self,
        decoder: std::result::Result<D, ImageError>,
    ) -> Result<(u32, u32)> {
        Ok(decoder.map_err(|error| self.explain(error))?.dimensions())
    }

    fn read_jpeg(&self, bytes: &[u8]) -> Result<DynamicImage> {
        let cut = |error| if self.scan.complete { error } else { self.truncated() };
        let jpeg = Jpeg::open(bytes).map_err(cut)?;
        let [width, height] = jpeg.size();
        self.check_declared(width, height, jpeg.needed_bytes())?;
        if !self.scan.complete {
            return Err(self.truncated());
        }
        let rgb = jpeg.decode()?;
        let image = RgbImage::from_raw(width, height, rgb)
            .expect("a decoded jpeg has width * height * 3 bytes");
        Ok(DynamicImage::ImageRgb8(image))
    }

    fn check_declared(&self, width: u32, height: u32, needed_bytes: u64) -> Result<()> {
        let format = self.format;
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            let reason = format!("declares {width}x{height} pixels");
            return Err(Error::Damaged { format, reason });
        }
        let max_pixels = self.limits.max_pixels;
        if pixels > max_pixels {
            return Err(Error::TooManyPixels { format, width, height, pixels, max_pixels });
        }
        let max_bytes = self.limits.max_bytes.min(isize::MAX as u64);
        if needed_bytes > max_bytes {
            return Err(Error::TooMuchMemory { format, width, height, needed_bytes, max_bytes });
        }
        Ok(())
    }

    fn decoder_limits(&self) -> Limits {
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(self.limits.max_bytes);
        limits
    }

    fn truncated(&self) -> Error {
        Error::Truncated { format: self.format, size_bytes: self.size_bytes }
    }

    fn explain(&self, error: ImageError) -> Error {
        let (format, max_bytes) = (self.format, self.limits.max_bytes);
        match error {
            ImageError::IoError(io) if io.kind() == ErrorKind::UnexpectedEof => self.truncated(),
            ImageError::Limits(_) => Error::DecoderMemory { format, max_bytes },
            _ if !self.scan.complete => self.truncated(),
            other => Error::Damaged { format, reason: other.to_string() },
        }
    }
}
