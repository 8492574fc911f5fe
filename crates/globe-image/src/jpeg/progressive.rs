//! Progressive scans: coefficients of the whole image gain bits and bands scan by scan.

use crate::error::Result;

use super::bits::BitReader;
use super::frame::{Component, Frame, Plane};
use super::huffman::Decoder;
use super::idct::inverse_dct;
use super::markers::{Markers, Scan, ac_decoder, dc_decoder};
use super::scan::{self, BlockDecoder};
use super::sequential::dc_difference;
use super::{BLOCK_SIZE, Block, NATURAL_ORDER, damaged};

/// More would shift every coefficient out of its 16 bits.
const MAX_SHIFT: u8 = 13;

/// Coefficients of all components, in blocks padded to whole coding units.
pub(super) struct Coefficients(Vec<Vec<Block>>);

impl Coefficients {
    /// Zeros, which a scan that never comes leaves.
    pub(super) fn new(frame: &Frame) -> Self {
        let zeros = |part: &Component| vec![[0; BLOCK_SIZE]; part.padded[0] * part.padded[1]];
        Self(frame.components.iter().map(zeros).collect())
    }

    /// Samples; the coefficients of each component are freed as soon as possible.
    pub(super) fn into_planes(self, frame: &Frame) -> Vec<Plane> {
        self.0
            .into_iter()
            .zip(&frame.components)
            .map(|(blocks, part)| plane(&blocks, part))
            .collect()
    }
}

fn plane(blocks: &[Block], component: &Component) -> Plane {
    let mut plane = Plane::grey(component);
    let stride = plane.stride;
    // Without any scan there is no table, and no coefficient either.
    let quantisation = component.quantisation.unwrap_or([0; BLOCK_SIZE]);
    for (row, blocks) in blocks.chunks(component.padded[0]).enumerate() {
        for (col, block) in blocks.iter().enumerate() {
            let flat = block[1..].iter().all(|&coefficient| coefficient == 0);
            inverse_dct(block, &quantisation, flat, plane.block_mut(col, row), stride);
        }
    }
    plane
}

/// Adds what a scan carries to `coefficients`.
pub(super) fn decode_scan(
    markers: &mut Markers<'_>,
    frame: &Frame,
    scan: &Scan,
    coefficients: &mut Coefficients,
) -> Result<()> {
    check_progression(scan)?;
    let Coefficients(planes) = coefficients;
    let [before, shift] = scan.approximation;
    if scan.band[0] > 0 {
        let idx = scan.parts[0].idx;
        let band = Band {
            codes: ac_decoder(markers, scan.parts[0].ac)?,
            band: scan.band,
            shift,
            run: 0,
            cols: frame.components[idx].padded[0],
            blocks: &mut planes[idx],
        };
        if before == 0 {
            scan::visit(markers, frame, scan, &mut FirstBand(band));
        } else {
            scan::visit(markers, frame, scan, &mut RefineBand(band));
        }
        return Ok(());
    }
    let targets = scan.parts.iter().map(|part| (part.idx, frame.components[part.idx].padded[0]));
    let targets = targets.collect();
    if before > 0 {
        scan::visit(markers, frame, scan, &mut RefineDc { shift, targets, planes });
        return Ok(());
    }
    let codes = scan.parts.iter().map(|part| dc_decoder(markers, part.dc));
    let codes = codes.collect::<Result<Vec<_>>>()?;
    let last = vec![0; codes.len()];
    scan::visit(markers, frame, scan, &mut FirstDc { codes, last, shift, targets, planes });
    Ok(())
}

fn check_progression(scan: &Scan) -> Result<()> {
    let ([start, end], [before, shift]) = (scan.band, scan.approximation);
    let band = if start == 0 { end == 0 } else { start <= end && end < BLOCK_SIZE };
    let alone = start == 0 || scan.parts.len() == 1;
    let follows = before == 0 || before == shift + 1;
    if band && alone && follows && shift <= MAX_SHIFT {
        return Ok(());
    }
    let reason = format!("a scan has band {start} to {end} and approximation {before} to {shift}");
    Err(damaged(reason))
}

/// Component index and blocks per row of each component of a scan.
type Targets = Vec<(usize, usize)>;

/// The first scan of DC coefficients.
struct FirstDc<'a> {
    codes: Vec<Decoder>,
    last: Vec<i32>,
    shift: u8,
    targets: Targets,
    planes: &'a mut [Vec<Block>],
}

impl BlockDecoder for FirstDc<'_> {
    fn block(&mut self, bits: &mut BitReader<'_>, part: usize, col: usize, row: usize) {
        let last = &mut self.last[part];
        *last = last.wrapping_add(dc_difference(&self.codes[part], bits));
        let (plane, cols) = self.targets[part];
        self.planes[plane][row * cols + col][0] = (*last << self.shift) as i16;
    }

    fn restart(&mut self) {
        self.last.fill(0);
    }
}

/// A later scan of DC coefficients: one bit each.
struct RefineDc<'a> {
    shift: u8,
    targets: Targets,
    planes: &'a mut [Vec<Block>],
}

impl BlockDecoder for RefineDc<'_> {
    fn block(&mut self, bits: &mut BitReader<'_>, part: usize, col: usize, row: usize) {
        let (plane, cols) = self.targets[part];
        self.planes[plane][row * cols + col][0] |= i16::from(bits.take_bit()) << self.shift;
    }

    fn restart(&mut self) {}
}

/// A scan of AC coefficients of one component.
struct Band<'a> {
    codes: Decoder,
    /// First and last zigzag position.
    band: [usize; 2],
    shift: u8,
    /// Blocks, from the next one on, whose rest of the band is empty.
    run: u32,
    cols: usize,
    blocks: &'a mut [Block],
}

impl Band<'_> {
    /// The length of an end-of-band run, of which the present block is the first.
    fn run_length(exponent: usize, bits: &mut BitReader<'_>) -> u32 {
        let extra = if exponent == 0 { 0 } else { bits.take_bits(exponent as u32) };
        (1 << exponent) + extra
    }
}

/// The first scan of a band.
struct FirstBand<'a>(Band<'a>);

impl BlockDecoder for FirstBand<'_> {
    fn block(&mut self, bits: &mut BitReader<'_>, _: usize, col: usize, row: usize) {
        let Self(scan) = self;
        if scan.run > 0 {
            scan.run -= 1;
            return;
        }
        let block = &mut scan.blocks[row * scan.cols + col];
        let [mut k, end] = scan.band;
        while k <= end {
            let symbol = scan.codes.symbol(bits);
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 {
                if run != 15 {
                    scan.run = Band::run_length(run, bits) - 1;
                    break;
                }
                k += 16;
                continue;
            }
            k += run;
            block[usize::from(NATURAL_ORDER[k])] = (bits.take_signed(size) << scan.shift) as i16;
            k += 1;
        }
    }

    fn restart(&mut self) {
        self.0.run = 0;
    }
}

/// A later scan of a band: one more bit of each known coefficient, and new coefficients of size 1.
struct RefineBand<'a>(Band<'a>);

impl BlockDecoder for RefineBand<'_> {
    fn block(&mut self, bits: &mut BitReader<'_>, _: usize, col: usize, row: usize) {
        let Self(scan) = self;
        let block = &mut scan.blocks[row * scan.cols + col];
        let [mut k, end] = scan.band;
        let bit = 1 << scan.shift;
        while scan.run == 0 && k <= end {
            let symbol = scan.codes.symbol(bits);
            let (zeros, size) = (usize::from(symbol >> 4), symbol & 15);
            let mut new = 0;
            if size != 0 {
                new = if bits.take_bit() { bit } else { -bit };
            } else if zeros != 15 {
                scan.run = Band::run_length(zeros, bits);
                break;
            }
            k = refine(block, bits, bit, k..=end, zeros);
            if new != 0 {
                block[usize::from(NATURAL_ORDER[k])] = new;
            }
            k += 1;
        }
        if scan.run > 0 {
            refine(block, bits, bit, k..=end, BLOCK_SIZE);
            scan.run -= 1;
        }
    }

    fn restart(&mut self) {
        self.0.run = 0;
    }
}

/// Refines the known coefficients of `band` up to the zero behind `zeros` other zeros; returns
/// its position, or the one behind the band.
fn refine(
    block: &mut Block,
    bits: &mut BitReader<'_>,
    bit: i16,
    band: std::ops::RangeInclusive<usize>,
    mut zeros: usize,
) -> usize {
    let behind = band.end() + 1;
    for k in band {
        let coefficient = &mut block[usize::from(NATURAL_ORDER[k])];
        if *coefficient != 0 {
            // A repeated scan may already have set the bit.
            if bits.take_bit() && *coefficient & bit == 0 {
                let step = if *coefficient >= 0 { bit } else { -bit };
                *coefficient = coefficient.wrapping_add(step);
            }
        } else if zeros == 0 {
            return k;
        } else {
            zeros -= 1;
        }
    }
    behind
}
