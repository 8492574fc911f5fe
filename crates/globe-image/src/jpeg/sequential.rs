//! Sequential scans: a block is complete when it is read, and becomes samples at once.

use crate::error::Result;

use super::bits::BitReader;
use super::frame::{Frame, Plane};
use super::huffman::Decoder;
use super::idct::inverse_dct;
use super::markers::{Markers, Scan, ac_decoder, dc_decoder};
use super::scan::{self, BlockDecoder};
use super::{BLOCK_SIZE, NATURAL_ORDER};

/// Decodes a scan into the planes of its components.
pub(super) fn decode_scan(
    markers: &mut Markers<'_>,
    frame: &Frame,
    scan: &Scan,
    planes: &mut [Plane],
) -> Result<()> {
    markers.use_standard_codes();
    let part = |part: &super::markers::ScanPart| -> Result<Part> {
        Ok(Part {
            plane: part.idx,
            dc: dc_decoder(markers, part.dc)?,
            ac: ac_decoder(markers, part.ac)?,
            quantisation: frame.components[part.idx].quantisation.unwrap_or([0; BLOCK_SIZE]),
            last_dc: 0,
        })
    };
    let parts = scan.parts.iter().map(part).collect::<Result<_>>()?;
    scan::visit(markers, frame, scan, &mut Sequential { parts, planes });
    Ok(())
}

struct Sequential<'a> {
    parts: Vec<Part>,
    planes: &'a mut [Plane],
}

/// One component of the scan.
struct Part {
    plane: usize,
    dc: Decoder,
    ac: Decoder,
    quantisation: [u16; BLOCK_SIZE],
    last_dc: i32,
}

impl BlockDecoder for Sequential<'_> {
    #[inline]
    fn block(&mut self, bits: &mut BitReader<'_>, part: usize, col: usize, row: usize) {
        let part = &mut self.parts[part];
        let mut block = [0_i16; BLOCK_SIZE];
        part.last_dc = part.last_dc.wrapping_add(dc_difference(&part.dc, bits));
        block[0] = part.last_dc as i16;
        let flat = !ac_coefficients(&part.ac, bits, &mut block);
        let plane = &mut self.planes[part.plane];
        let stride = plane.stride;
        inverse_dct(&block, &part.quantisation, flat, plane.block_mut(col, row), stride);
    }

    fn restart(&mut self) {
        for part in &mut self.parts {
            part.last_dc = 0;
        }
    }
}

/// The difference of a block's DC coefficient to the one before.
#[inline]
pub(super) fn dc_difference(codes: &Decoder, bits: &mut BitReader<'_>) -> i32 {
    match codes.symbol(bits) {
        0 => 0,
        size => bits.take_signed(u32::from(size)),
    }
}

/// Reads all AC coefficients; returns whether there are any.
#[inline]
fn ac_coefficients(
    codes: &Decoder,
    bits: &mut BitReader<'_>,
    block: &mut [i16; BLOCK_SIZE],
) -> bool {
    let mut k = 1;
    let mut any = false;
    while k < BLOCK_SIZE {
        let symbol = codes.symbol(bits);
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if run != 15 {
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        block[usize::from(NATURAL_ORDER[k])] = bits.take_signed(size) as i16;
        any = true;
        k += 1;
    }
    any
}
