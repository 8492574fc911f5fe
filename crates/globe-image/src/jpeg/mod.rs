//! JPEG decoding that yields the same bytes as libjpeg-turbo with its default settings.
//!
//! Pillow, and with it `transformers`, decodes through libjpeg-turbo. JPEG leaves the rounding of
//! the inverse DCT and the interpolation of chroma to the decoder, and a difference of one level
//! is enough to change what a model says. So every integer operation that reaches a pixel follows
//! libjpeg-turbo: the accurate integer DCT, the triangle filter for chroma, 16-bit fixed point for
//! colour. `tests/golden` holds the evidence.
//!
//! Like libjpeg-turbo, bad codes inside the entropy-coded data are no error: what is left of the
//! image stays grey. Not followed: arithmetic coding, lossless and 12-bit files are refused, and a
//! progressive file whose last scans are absent is not smoothed.

mod bits;
mod color;
mod frame;
mod huffman;
mod idct;
mod markers;
mod progressive;
mod scan;
mod sequential;
mod standard_tables;
mod upsample;

use crate::container::Format;
use crate::error::{Error, Result};

use frame::{Component, Frame, Plane};
use markers::{Event, Markers, Scan};
use progressive::Coefficients;

/// Samples along the edge of a DCT block.
const BLOCK_EDGE: usize = 8;
/// Coefficients, or samples, of a DCT block.
const BLOCK_SIZE: usize = BLOCK_EDGE * BLOCK_EDGE;
/// Encoders write about ten; the count bounds the time that a small hostile file can take.
const MAX_SCANS: usize = 500;
/// Block visits that are always allowed, over all scans.
const FREE_VISITS: u64 = 1 << 25;
/// Visits per block of the image beyond those; progressive encoders need less than ten.
const VISITS_PER_BLOCK: u64 = 32;

/// Coefficients of one block in natural order, before dequantisation.
type Block = [i16; BLOCK_SIZE];

/// Natural position of the coefficient at each zigzag position. The 16 entries behind the end
/// catch runs that a damaged file lets reach beyond the block.
const NATURAL_ORDER: [u8; BLOCK_SIZE + 16] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
    63, 63, 63, 63, 63, 63,
];

/// A JPEG file whose headers have been read, up to its first scan.
pub(crate) struct Jpeg<'a> {
    markers: Markers<'a>,
    frame: Frame,
    first_scan: Scan,
}

impl<'a> Jpeg<'a> {
    /// Reads the headers; allocates nothing that depends on the size of the image.
    ///
    /// # Errors
    /// [`Error::Damaged`], or [`Error::UnsupportedJpeg`] with the name of the coding process.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self> {
        let mut markers = Markers::new(bytes);
        let mut frame = None;
        loop {
            match markers.next_event()? {
                Event::Frame(_) if frame.is_some() => return Err(damaged("it has two frames")),
                Event::Frame(header) => frame = Some(header),
                Event::Scan(body) => {
                    let frame = frame.ok_or_else(|| damaged("a scan precedes the frame header"))?;
                    let first_scan = Scan::parse(body, &frame)?;
                    return Ok(Self { markers, frame, first_scan });
                }
                Event::End => return Err(damaged("it has no scan")),
            }
        }
    }

    /// Declared width and height in pixels; never zero.
    pub(crate) fn size(&self) -> [u32; 2] {
        [self.frame.width as u32, self.frame.height as u32]
    }

    /// Peak size in bytes of the buffers of [`Self::decode`], and of one copy of the pixels.
    pub(crate) fn needed_bytes(&self) -> u64 {
        let blocks: u64 = self.frame.components.iter().map(Component::padded_blocks).sum();
        let planes = blocks * BLOCK_SIZE as u64;
        let coefficients = if self.frame.progressive { 2 * planes } else { 0 };
        let rgb = 3 * self.frame.width as u64 * self.frame.height as u64;
        (planes + coefficients).max(planes.max(rgb) + rgb)
    }

    /// RGB, `[height, width, 3]`. The caller has compared [`Self::needed_bytes`] with its limit.
    ///
    /// # Errors
    /// [`Error::Damaged`] for invalid headers and tables, also between scans.
    pub(crate) fn decode(self) -> Result<Vec<u8>> {
        let Self { mut markers, mut frame, first_scan } = self;
        let color = color::Space::guess(&frame, markers.jfif, markers.adobe_transform);
        let planes = if frame.progressive {
            let mut coefficients = Coefficients::new(&frame);
            for_each_scan(&mut markers, &mut frame, first_scan, |markers, frame, scan| {
                progressive::decode_scan(markers, frame, scan, &mut coefficients)
            })?;
            coefficients.into_planes(&frame)
        } else {
            let mut planes: Vec<_> = frame.components.iter().map(Plane::grey).collect();
            for_each_scan(&mut markers, &mut frame, first_scan, |markers, frame, scan| {
                sequential::decode_scan(markers, frame, scan, &mut planes)
            })?;
            planes
        };
        Ok(color::to_rgb(color, &frame, &planes))
    }
}

/// Runs `decode` on `first` and on the scans behind it, up to the end of the image.
fn for_each_scan<'a>(
    markers: &mut Markers<'a>,
    frame: &mut Frame,
    first: Scan,
    mut decode: impl FnMut(&mut Markers<'a>, &Frame, &Scan) -> Result<()>,
) -> Result<()> {
    let all_blocks: u64 = frame.components.iter().map(Component::padded_blocks).sum();
    // libjpeg-turbo, too, reads on only if the first scan cannot have been all.
    let single = !frame.progressive && first.parts.len() == frame.components.len();
    let mut visits_left = FREE_VISITS + VISITS_PER_BLOCK * all_blocks;
    let mut scan = first;
    for _ in 0..MAX_SCANS {
        let visited = scan.parts.iter().map(|part| frame.components[part.idx].padded_blocks());
        visits_left = visits_left.checked_sub(visited.sum()).ok_or_else(too_many_scans)?;
        frame.latch_quantisation(&scan, &markers.quantisation)?;
        decode(markers, frame, &scan)?;
        if single {
            return Ok(());
        }
        scan = match markers.next_event()? {
            Event::Scan(body) => Scan::parse(body, frame)?,
            Event::Frame(_) => return Err(damaged("it has two frames")),
            Event::End => return Ok(()),
        };
    }
    Err(too_many_scans())
}

fn too_many_scans() -> Error {
    damaged(format!("it has more scans than its size explains, or more than {MAX_SCANS}"))
}

fn damaged(reason: impl Into<String>) -> Error {
    Error::Damaged { format: Format::Jpeg, reason: reason.into() }
}
