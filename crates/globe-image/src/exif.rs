//! EXIF: the orientation and the GPS position, nothing else.
//!
//! The block is untrusted and optional, so reading it is total: damage yields a warning and what
//! could still be read. Only two directories are visited, each at most once, so the work is linear
//! in the block; a general reader follows every pointer entry and can be made to loop over one
//! directory thousands of times.

/// Position where the photo was taken, as the camera wrote it. It never influences pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gps {
    /// Degrees north, -90 to 90.
    pub latitude: f64,
    /// Degrees east, -180 to 180.
    pub longitude: f64,
}

/// What was found in an EXIF block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Exif {
    /// 1 to 8; 1 (upright) if absent or invalid.
    pub orientation: u8,
    pub gps: Option<Gps>,
    /// The first thing that could not be read.
    pub warning: Option<&'static str>,
}

const ORIENTATION: u16 = 0x0112;
const GPS_DIRECTORY: u16 = 0x8825;
const LATITUDE_REF: u16 = 1;
const LATITUDE: u16 = 2;
const LONGITUDE_REF: u16 = 3;
const LONGITUDE: u16 = 4;

/// Reads a TIFF block; `None` is a file without EXIF.
pub(crate) fn read(block: Option<&[u8]>) -> Exif {
    let mut exif = Exif { orientation: 1, gps: None, warning: None };
    let Some(block) = block else { return exif };
    match Tiff::new(block) {
        Some((tiff, first)) => exif.fill(&tiff, first),
        None => exif.warn("exif block has no TIFF header, ignored"),
    }
    exif
}

impl Exif {
    fn fill(&mut self, tiff: &Tiff<'_>, first: usize) {
        let main = tiff.directory(first);
        if main.cut {
            self.warn("exif directory is cut short");
        }
        if let Some(entry) = main.get(ORIENTATION) {
            match tiff.unsigned(entry) {
                Some(value @ 1..=8) => self.orientation = value as u8,
                _ => self.warn("exif orientation is not 1 to 8, ignored"),
            }
        }
        let Some(entry) = main.get(GPS_DIRECTORY) else { return };
        match tiff.unsigned(entry).map(|at| position(tiff, &tiff.directory(at as usize))) {
            Some(Position::Found(gps)) => self.gps = Some(gps),
            Some(Position::Absent) => {}
            Some(Position::Invalid) | None => self.warn("exif gps position is invalid, ignored"),
        }
    }

    fn warn(&mut self, warning: &'static str) {
        self.warning.get_or_insert(warning);
    }
}

enum Position {
    Found(Gps),
    /// A GPS directory without coordinates, as phones write it when they have no fix.
    Absent,
    Invalid,
}

fn position(tiff: &Tiff<'_>, directory: &Directory) -> Position {
    if directory.get(LATITUDE).is_none() && directory.get(LONGITUDE).is_none() {
        return if directory.cut { Position::Invalid } else { Position::Absent };
    }
    let latitude = coordinate(tiff, directory, LATITUDE, LATITUDE_REF, (b'N', b'S'), 90.0);
    let longitude = coordinate(tiff, directory, LONGITUDE, LONGITUDE_REF, (b'E', b'W'), 180.0);
    match (latitude, longitude) {
        (Some(latitude), Some(longitude)) => Position::Found(Gps { latitude, longitude }),
        _ => Position::Invalid,
    }
}

/// Degrees, minutes and seconds with their hemisphere, in decimal degrees. Without a hemisphere
/// the sign is unknown and no position is better than a mirrored one.
fn coordinate(
    tiff: &Tiff<'_>,
    directory: &Directory,
    tag: u16,
    ref_tag: u16,
    (positive, negative): (u8, u8),
    limit: f64,
) -> Option<f64> {
    let hemisphere = tiff.ascii_byte(directory.get(ref_tag)?)?.to_ascii_uppercase();
    let sign = match hemisphere {
        h if h == positive => 1.0,
        h if h == negative => -1.0,
        _ => return None,
    };
    let entry = directory.get(tag)?;
    let mut degrees = tiff.rational(entry, 0)?;
    for (idx, scale) in [(1, 60.0), (2, 3600.0)] {
        if idx < entry.count {
            degrees += tiff.rational(entry, idx)? / scale;
        }
    }
    (degrees <= limit).then_some(sign * degrees)
}

/// One 12-byte directory entry.
#[derive(Clone, Copy)]
struct Entry {
    tag: u16,
    kind: u16,
    count: usize,
    /// Offset of the 4-byte field that holds the value or points to it.
    field: usize,
}

struct Directory {
    entries: Vec<Entry>,
    /// The block ends before the announced entries do.
    cut: bool,
}

impl Directory {
    fn get(&self, tag: u16) -> Option<Entry> {
        self.entries.iter().copied().find(|entry| entry.tag == tag)
    }
}

/// A TIFF block with its byte order. All offsets are from its start and checked on use.
struct Tiff<'a> {
    block: &'a [u8],
    little_endian: bool,
}

impl<'a> Tiff<'a> {
    /// The block and the offset of its first directory.
    fn new(block: &'a [u8]) -> Option<(Self, usize)> {
        let little_endian = match block.get(..4)? {
            b"II*\0" => true,
            b"MM\0*" => false,
            _ => return None,
        };
        let tiff = Self { block, little_endian };
        let first = tiff.u32(4)? as usize;
        Some((tiff, first))
    }

    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.block.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes(at)?;
        Some(if self.little_endian { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes(at)?;
        Some(if self.little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn directory(&self, at: usize) -> Directory {
        let announced = usize::from(self.u16(at).unwrap_or(0));
        let entries: Vec<Entry> =
            (0..announced).map_while(|idx| self.entry(at.checked_add(2 + idx * 12)?)).collect();
        let cut = entries.len() < announced || self.u16(at).is_none();
        Directory { entries, cut }
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        let field = at.checked_add(8)?;
        self.u32(field)?;
        let count = self.u32(at + 4)? as usize;
        Some(Entry { tag: self.u16(at)?, kind: self.u16(at + 2)?, count, field })
    }

    /// A single BYTE, SHORT or LONG, which is always stored in the entry itself.
    fn unsigned(&self, entry: Entry) -> Option<u32> {
        match (entry.kind, entry.count) {
            (1, 1) => Some(u32::from(self.bytes::<1>(entry.field)?[0])),
            (3, 1) => Some(u32::from(self.u16(entry.field)?)),
            (4, 1) => self.u32(entry.field),
            _ => None,
        }
    }

    /// The first character of an ASCII value.
    fn ascii_byte(&self, entry: Entry) -> Option<u8> {
        let at = if entry.count > 4 { self.u32(entry.field)? as usize } else { entry.field };
        (entry.kind == 2 && entry.count > 0).then(|| self.bytes::<1>(at))?.map(|[byte]| byte)
    }

    /// Element `idx` of an array of unsigned RATIONAL. Zero denominators mean "unknown".
    fn rational(&self, entry: Entry, idx: usize) -> Option<f64> {
        if entry.kind != 5 || idx >= entry.count {
            return None;
        }
        let at = (self.u32(entry.field)? as usize).checked_add(idx * 8)?;
        let (numerator, denominator) = (self.u32(at)?, self.u32(at.checked_add(4)?)?);
        (denominator != 0).then(|| f64::from(numerator) / f64::from(denominator))
    }
}
