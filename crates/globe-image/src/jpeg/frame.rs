//! The frame header: size, components, and the geometry that follows from their sampling factors.

use crate::error::{Error, Result};

use super::markers::{QuantisationTables, Scan};
use super::{BLOCK_EDGE, BLOCK_SIZE, damaged};

/// Largest sampling factor in the standard.
const MAX_SAMPLING: u8 = 4;

/// What a frame header says, with the geometry worked out.
pub(super) struct Frame {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Whether coefficients arrive in several scans.
    pub progressive: bool,
    /// One, three or four.
    pub components: Vec<Component>,
    /// Largest horizontal and vertical sampling factor.
    pub max_sampling: [usize; 2],
    /// Columns and rows of interleaved coding units.
    pub units: [usize; 2],
}

/// One colour component. Pairs are horizontal, vertical.
pub(super) struct Component {
    /// Identifier that scans refer to.
    pub id: u8,
    /// Sampling factors: blocks per interleaved coding unit.
    pub sampling: [usize; 2],
    /// Size in samples.
    pub size: [usize; 2],
    /// Size in blocks, without padding.
    pub blocks: [usize; 2],
    /// Size in blocks, padded to whole coding units.
    pub padded: [usize; 2],
    /// Slot of the quantisation table.
    quantisation_idx: u8,
    /// The table as it was at the component's first scan, in natural order.
    pub quantisation: Option<[u16; BLOCK_SIZE]>,
}

impl Component {
    /// Blocks with padding: what scans visit and buffers hold.
    pub(super) fn padded_blocks(&self) -> u64 {
        self.padded[0] as u64 * self.padded[1] as u64
    }
}

impl Frame {
    /// Parses the body of a frame header segment.
    pub(super) fn parse(body: &[u8], progressive: bool) -> Result<Self> {
        let Some((&[precision, h0, h1, w0, w1, count], parts)) = body.split_first_chunk() else {
            return Err(damaged("its frame header is too short"));
        };
        if precision != 8 {
            return Err(Error::UnsupportedJpeg { feature: format!("{precision}-bit samples") });
        }
        let size = [u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1])].map(usize::from);
        if size.contains(&0) {
            return Err(damaged(format!("it declares {}x{} pixels", size[0], size[1])));
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(Error::UnsupportedJpeg { feature: format!("{count} colour components") });
        }
        let (parts, rest) = parts.as_chunks::<3>();
        if parts.len() != usize::from(count) || !rest.is_empty() {
            return Err(damaged("its frame header has the wrong length"));
        }
        let valid = |part: &[u8; 3]| {
            [part[1] >> 4, part[1] & 15].iter().all(|factor| (1..=MAX_SAMPLING).contains(factor))
        };
        if !parts.iter().all(valid) {
            return Err(damaged("a sampling factor is not 1 to 4"));
        }
        Self::layout(size, parts, progressive)
    }

    fn layout(size: [usize; 2], parts: &[[u8; 3]], progressive: bool) -> Result<Self> {
        let sampling = |part: &[u8; 3]| [usize::from(part[1] >> 4), usize::from(part[1] & 15)];
        let max = |axis: usize| parts.iter().map(|part| sampling(part)[axis]).max().unwrap_or(1);
        let max_sampling = [max(0), max(1)];
        let units = [0, 1].map(|axis| size[axis].div_ceil(max_sampling[axis] * BLOCK_EDGE));
        let component = |part: &[u8; 3]| {
            let sampling = sampling(part);
            let scaled = [0, 1].map(|axis| size[axis] * sampling[axis]);
            let over =
                |edge: usize| [0, 1].map(|axis| scaled[axis].div_ceil(max_sampling[axis] * edge));
            Component {
                id: part[0],
                sampling,
                size: over(1),
                blocks: over(BLOCK_EDGE),
                padded: [0, 1].map(|axis| units[axis] * sampling[axis]),
                quantisation_idx: part[2],
                quantisation: None,
            }
        };
        let components: Vec<_> = parts.iter().map(component).collect();
        let whole = |part: &Component| {
            [0, 1].iter().all(|&axis| max_sampling[axis].is_multiple_of(part.sampling[axis]))
        };
        if !components.iter().all(whole) {
            return Err(Error::UnsupportedJpeg { feature: "fractional subsampling".into() });
        }
        let [width, height] = size;
        Ok(Self { width, height, progressive, components, max_sampling, units })
    }

    /// Keeps the quantisation tables of components that `scan` is the first to carry: a file may
    /// redefine a slot between scans.
    pub(super) fn latch_quantisation(
        &mut self,
        scan: &Scan,
        tables: &QuantisationTables,
    ) -> Result<()> {
        for part in &scan.parts {
            let component = &mut self.components[part.idx];
            if component.quantisation.is_none() {
                let slot = component.quantisation_idx;
                let table = tables.get(usize::from(slot)).copied().flatten();
                let missing = || damaged(format!("quantisation table {slot} is missing"));
                component.quantisation = Some(table.ok_or_else(missing)?);
            }
        }
        Ok(())
    }
}

/// Decoded samples of one component, padded to whole coding units.
pub(super) struct Plane {
    /// Row-major samples.
    pub samples: Vec<u8>,
    /// Samples per row.
    pub stride: usize,
}

impl Plane {
    /// The middle level: what a component without data decodes to.
    pub(super) fn grey(component: &Component) -> Self {
        let [cols, rows] = component.padded;
        Self { samples: vec![128; cols * rows * BLOCK_SIZE], stride: cols * BLOCK_EDGE }
    }

    /// Samples from the top left corner of a block to the end of the plane.
    pub(super) fn block_mut(&mut self, col: usize, row: usize) -> &mut [u8] {
        &mut self.samples[(row * self.stride + col) * BLOCK_EDGE..]
    }

    /// One row of samples with padding.
    pub(super) fn row(&self, row: usize) -> &[u8] {
        &self.samples[row * self.stride..][..self.stride]
    }
}
