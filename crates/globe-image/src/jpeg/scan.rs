//! The order in which a scan visits blocks, and its restarts.

use super::bits::BitReader;
use super::frame::Frame;
use super::markers::{Markers, Scan};

/// Decodes the blocks of one kind of scan.
pub(super) trait BlockDecoder {
    /// Decodes one block of the scan's component number `part`.
    fn block(&mut self, bits: &mut BitReader<'_>, part: usize, col: usize, row: usize);

    /// Forgets predictions: a new segment begins.
    fn restart(&mut self);
}

/// Feeds every block of `scan` to `decoder`, until the data ends.
pub(super) fn visit(
    markers: &mut Markers<'_>,
    frame: &Frame,
    scan: &Scan,
    decoder: &mut impl BlockDecoder,
) {
    let mut bits = markers.bit_reader();
    let walk = Walk::new(frame, scan);
    let n_units = walk.units[0] * walk.units[1];
    let interval = if markers.restart_interval == 0 { n_units } else { markers.restart_interval };
    for (segment, start) in (0..n_units).step_by(interval).enumerate() {
        if segment > 0 {
            bits.restart(((segment - 1) & 7) as u8);
            decoder.restart();
        }
        for unit in start..n_units.min(start + interval) {
            if bits.exhausted {
                break;
            }
            walk.unit(unit, &mut bits, decoder);
        }
        if bits.finished() {
            break;
        }
    }
    markers.resume(&bits);
}

/// Coding units of a scan: single blocks of one component, or interleaved groups of several.
struct Walk {
    /// Columns and rows of units.
    units: [usize; 2],
    /// Blocks per unit of each component, horizontally and vertically.
    groups: Vec<[usize; 2]>,
}

impl Walk {
    fn new(frame: &Frame, scan: &Scan) -> Self {
        match &scan.parts[..] {
            [part] => Self { units: frame.components[part.idx].blocks, groups: vec![[1, 1]] },
            parts => Self {
                units: frame.units,
                groups: parts.iter().map(|part| frame.components[part.idx].sampling).collect(),
            },
        }
    }

    #[inline]
    fn unit(&self, unit: usize, bits: &mut BitReader<'_>, decoder: &mut impl BlockDecoder) {
        let (col, row) = (unit % self.units[0], unit / self.units[0]);
        for (part, &[cols, rows]) in self.groups.iter().enumerate() {
            for y in 0..rows {
                for x in 0..cols {
                    decoder.block(bits, part, col * cols + x, row * rows + y);
                }
            }
        }
    }
}
