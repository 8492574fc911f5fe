//! Marker segments: tables and parameters are kept, frame and scan headers are reported.

use crate::error::{Error, Result};

use super::bits::BitReader;
use super::frame::Frame;
use super::huffman::{Codes, Decoder};
use super::{BLOCK_SIZE, NATURAL_ORDER, damaged, standard_tables};

/// Slots for each kind of table.
const N_TABLES: usize = 4;
/// Blocks per interleaved coding unit that the standard allows.
const MAX_UNIT_BLOCKS: usize = 10;

/// By slot, in natural order.
pub(super) type QuantisationTables = [Option<[u16; BLOCK_SIZE]>; N_TABLES];

/// Position in the file, and everything that segments have set so far.
pub(super) struct Markers<'a> {
    bytes: &'a [u8],
    pos: usize,
    /// Quantisation tables.
    pub quantisation: QuantisationTables,
    /// Huffman codes for DC differences, by slot.
    pub dc_codes: [Option<Codes>; N_TABLES],
    /// Huffman codes for AC coefficients, by slot.
    pub ac_codes: [Option<Codes>; N_TABLES],
    /// Coding units between restart markers; 0 without.
    pub restart_interval: usize,
    /// Whether a JFIF segment was seen.
    pub jfif: bool,
    /// Colour transform of the Adobe segment.
    pub adobe_transform: Option<u8>,
}

/// What needs the caller.
pub(super) enum Event<'a> {
    /// A frame header.
    Frame(Frame),
    /// The body of a scan header; entropy-coded data follows.
    Scan(&'a [u8]),
    /// The end of the image.
    End,
}

/// A scan header.
pub(super) struct Scan {
    /// Components in this scan, one to four.
    pub parts: Vec<ScanPart>,
    /// First and last zigzag position.
    pub band: [usize; 2],
    /// Bit positions of successive approximation: of the scan before (0: first) and of this one.
    pub approximation: [u8; 2],
}

/// One component of a scan.
pub(super) struct ScanPart {
    /// Index into the frame's components.
    pub idx: usize,
    /// Slot of the DC code.
    pub dc: usize,
    /// Slot of the AC code.
    pub ac: usize,
}

impl<'a> Markers<'a> {
    /// Starts behind the start-of-image marker, whose presence the caller has checked.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            pos: 2,
            quantisation: [None; N_TABLES],
            dc_codes: Default::default(),
            ac_codes: Default::default(),
            restart_interval: 0,
            jfif: false,
            adobe_transform: None,
        }
    }

    /// Reads segments up to the next one that is not merely a table or a parameter.
    pub(super) fn next_event(&mut self) -> Result<Event<'a>> {
        loop {
            let marker = next_marker(self.bytes, &mut self.pos)
                .ok_or_else(|| damaged("it ends without an end marker"))?;
            match marker {
                0x01 | 0xd0..=0xd7 => continue, // these have no body
                0xd9 => return Ok(Event::End),
                _ => {}
            }
            let body = self.segment(marker)?;
            match marker {
                0xc0..=0xc2 => return Ok(Event::Frame(Frame::parse(body, marker == 0xc2)?)),
                0xc4 => self.define_codes(body)?,
                0xc3 | 0xc5..=0xcf => return Err(unsupported_process(marker)),
                0xda => return Ok(Event::Scan(body)),
                0xdb => self.define_quantisation(body)?,
                0xdd => self.set_restart_interval(body)?,
                0xe0 => self.jfif |= body.len() >= 14 && body.starts_with(b"JFIF\0"),
                0xee if body.len() >= 12 && body.starts_with(b"Adobe") => {
                    self.adobe_transform = Some(body[11]);
                }
                0xdc | 0xe1..=0xef | 0xfe => {} // line count, application data, comment
                _ => return Err(damaged(format!("it has an unknown marker, ff{marker:02x}"))),
            }
        }
    }

    fn segment(&mut self, marker: u8) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.pos..];
        let length =
            rest.first_chunk().map_or(0, |&length| usize::from(u16::from_be_bytes(length)));
        let body = rest.get(2..length).ok_or_else(|| {
            damaged(format!("the segment of marker ff{marker:02x} has length {length}"))
        })?;
        self.pos += length;
        Ok(body)
    }

    /// The entropy-coded data behind a scan header.
    pub(super) fn bit_reader(&self) -> BitReader<'a> {
        BitReader::new(self.bytes, self.pos)
    }

    /// Continues behind the entropy-coded data that `bits` has read.
    pub(super) fn resume(&mut self, bits: &BitReader<'_>) {
        self.pos = bits.marker_position();
    }

    /// Fills empty slots with the standard's codes, which motion JPEG leaves out.
    pub(super) fn use_standard_codes(&mut self) {
        for (slot, codes) in standard_tables::dc().into_iter().enumerate() {
            self.dc_codes[slot].get_or_insert(codes);
        }
        for (slot, codes) in standard_tables::ac().into_iter().enumerate() {
            self.ac_codes[slot].get_or_insert(codes);
        }
    }

    fn define_codes(&mut self, mut body: &[u8]) -> Result<()> {
        while let Some((&slot, rest)) = body.split_first() {
            let (codes, rest) = Codes::parse(rest)?;
            let tables = if slot & 0x10 == 0 { &mut self.dc_codes } else { &mut self.ac_codes };
            let entry = tables.get_mut(usize::from(slot & !0x10));
            let invalid = || damaged(format!("huffman table has invalid number {slot:#04x}"));
            *entry.ok_or_else(invalid)? = Some(codes);
            body = rest;
        }
        Ok(())
    }

    fn define_quantisation(&mut self, mut body: &[u8]) -> Result<()> {
        let short = || damaged("a quantisation table is cut off");
        while let Some((&slot, rest)) = body.split_first() {
            let entry_bytes = if slot >> 4 == 0 { 1 } else { 2 };
            let (entries, rest) =
                rest.split_at_checked(entry_bytes * BLOCK_SIZE).ok_or_else(short)?;
            let mut table = [0; BLOCK_SIZE];
            for (entry, position) in entries.chunks(entry_bytes).zip(NATURAL_ORDER) {
                table[usize::from(position)] =
                    entry.iter().fold(0, |value, &byte| value << 8 | u16::from(byte));
            }
            let invalid = || damaged(format!("quantisation table has invalid number {slot:#04x}"));
            *self.quantisation.get_mut(usize::from(slot & 15)).ok_or_else(invalid)? = Some(table);
            body = rest;
        }
        Ok(())
    }

    fn set_restart_interval(&mut self, body: &[u8]) -> Result<()> {
        let &interval =
            body.as_array().ok_or_else(|| damaged("its restart interval is cut off"))?;
        self.restart_interval = usize::from(u16::from_be_bytes(interval));
        Ok(())
    }
}

/// The next marker at or behind `pos`, which moves behind it. Skips anything else.
pub(super) fn next_marker(bytes: &[u8], pos: &mut usize) -> Option<u8> {
    loop {
        *pos += bytes.get(*pos..)?.iter().position(|&byte| byte == 0xff)?;
        *pos += bytes[*pos..].iter().position(|&byte| byte != 0xff).unwrap_or(bytes.len() - *pos);
        let &marker = bytes.get(*pos)?;
        *pos += 1;
        if marker != 0 {
            return Some(marker);
        }
    }
}

fn unsupported_process(marker: u8) -> Error {
    let feature = match marker {
        0xc3 => "lossless coding",
        0xc5 | 0xc6 => "hierarchical coding",
        0xc9 | 0xca | 0xcc => "arithmetic coding",
        _ => "an exotic coding process",
    };
    Error::UnsupportedJpeg { feature: feature.into() }
}

impl Scan {
    /// Parses the body of a scan header.
    pub(super) fn parse(body: &[u8], frame: &Frame) -> Result<Self> {
        let length = || damaged("a scan header has the wrong length");
        let (&count, rest) = body.split_first().ok_or_else(length)?;
        let (parts, rest) = rest.split_at_checked(2 * usize::from(count)).ok_or_else(length)?;
        let &[start, end, approximation] = rest.as_array().ok_or_else(length)?;
        let mut scan = Self {
            parts: Vec::new(),
            band: [usize::from(start), usize::from(end)],
            approximation: [approximation >> 4, approximation & 15],
        };
        for &[id, slots] in parts.as_chunks::<2>().0 {
            let unused = |idx: &usize| scan.parts.iter().all(|part| part.idx != *idx);
            let mut candidates = (0..frame.components.len()).filter(unused);
            let idx = candidates.find(|&idx| frame.components[idx].id == id).ok_or_else(|| {
                damaged(format!("a scan names unknown or repeated component {id}"))
            })?;
            let [dc, ac] = [slots >> 4, slots & 15].map(usize::from);
            scan.parts.push(ScanPart { idx, dc, ac });
        }
        let unit_blocks =
            |part: &ScanPart| -> usize { frame.components[part.idx].sampling.iter().product() };
        let blocks: usize = scan.parts.iter().map(unit_blocks).sum();
        if scan.parts.is_empty() || scan.parts.len() > 1 && blocks > MAX_UNIT_BLOCKS {
            return Err(damaged(format!("a scan has {blocks} blocks per coding unit")));
        }
        Ok(scan)
    }
}

/// Decoder for the DC codes in a slot.
pub(super) fn dc_decoder(markers: &Markers<'_>, slot: usize) -> Result<Decoder> {
    let decoder = decoder(&markers.dc_codes, slot)?;
    // The symbols are sizes of differences.
    if !decoder.symbols_at_most(15) {
        return Err(damaged(format!("huffman table {slot} is not one for dc coefficients")));
    }
    Ok(decoder)
}

/// Decoder for the AC codes in a slot.
pub(super) fn ac_decoder(markers: &Markers<'_>, slot: usize) -> Result<Decoder> {
    decoder(&markers.ac_codes, slot)
}

fn decoder(slots: &[Option<Codes>; N_TABLES], slot: usize) -> Result<Decoder> {
    let codes = slots.get(slot).and_then(Option::as_ref);
    codes.ok_or_else(|| damaged(format!("huffman table {slot} is missing")))?.decoder()
}
