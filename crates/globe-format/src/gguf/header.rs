//! Metadata and tensor table at the head of a GGUF file.
//!
//! Format: `docs/gguf.md` of ggml, versions 2 and 3, little-endian.

use std::{collections::BTreeMap, ops::Range};

use super::blocks::GgufType;
use crate::error::Error;

const MAGIC: &[u8; 4] = b"GGUF";

/// Data starts at a multiple of this unless `general.alignment` says otherwise.
const DEFAULT_ALIGN: u64 = 32;

/// Nested arrays are legal and unused; a damaged file must not exhaust the stack.
const MAX_DEPTH: usize = 4;

/// Dimensions that ggml has.
const MAX_DIMS: u32 = 4;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// Any unsigned integer, and signed ones that are not negative.
    Unsigned(u64),
    /// A negative integer.
    Negative(i64),
    /// A float; single precision in all files we know.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    Text(String),
    /// Values of one type.
    Array(Vec<GgufValue>),
}

/// What the table says about one tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StoredTensor {
    pub kind: GgufType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Place in the file.
    pub bytes: Range<u64>,
}

/// A parsed head.
#[derive(Debug)]
pub(super) struct Header {
    pub metadata: BTreeMap<String, GgufValue>,
    pub tensors: BTreeMap<String, StoredTensor>,
}

/// Why parsing stopped.
pub(super) enum Stop {
    /// The head is longer than the bytes at hand.
    NeedMore,
    /// The file cannot be used.
    Bad(Error),
}

/// Parses the head of a file of `size` bytes from its first bytes.
pub(super) fn parse(file: &str, bytes: &[u8], size: u64) -> Result<Header, Stop> {
    let mut r = Reader { file, bytes, at: 0 };
    if r.take(4)? != MAGIC {
        return Err(r.bad("header", "does not start with GGUF; is it a GGUF file?"));
    }
    match r.u32()? {
        2 | 3 => {}
        version if version.swap_bytes() <= 3 => {
            return Err(r.bad("version", "big-endian; only little-endian files are read"));
        }
        version => return Err(r.bad("version", format!("{version}, only 2 and 3 are read"))),
    }
    let (n_tensors, n_values) = (r.u64()?, r.u64()?);
    let mut metadata = BTreeMap::new();
    for _ in 0..n_values {
        let key = r.text("a metadata key")?;
        let kind = r.u32()?;
        let value = r.value(&key, kind, 0)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(r.bad(&key, "stands twice"));
        }
    }
    let (mut table, mut unknown) = (Vec::new(), Vec::new());
    for _ in 0..n_tensors {
        let (name, shape, kind, offset) = r.tensor()?;
        match GgufType::from_id(kind) {
            Some(kind) => table.push((name, shape, kind, offset)),
            None => unknown.push(format!("`{name}` has type {kind}")),
        }
    }
    if !unknown.is_empty() {
        let (file, known) = (file.into(), GgufType::known());
        return Err(Stop::Bad(Error::GgufTypes { file, tensors: unknown, known }));
    }
    let align = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGN,
        Some(GgufValue::Unsigned(align)) if align.is_power_of_two() && *align < 1 << 20 => *align,
        Some(other) => return Err(r.bad("general.alignment", format!("{other:?}"))),
    };
    let data = (r.at as u64).next_multiple_of(align);
    let tensors = place(&r, table, data, size)?;
    Ok(Header { metadata, tensors })
}

type Row = (String, Vec<u64>, GgufType, u64);

/// Finds and checks the bytes of every tensor.
fn place(
    r: &Reader<'_>,
    table: Vec<Row>,
    data: u64,
    size: u64,
) -> Result<BTreeMap<String, StoredTensor>, Stop> {
    let mut tensors = BTreeMap::new();
    for (name, shape, kind, offset) in table {
        let block = kind.block_len() as u64;
        if !shape.last().is_none_or(|cols| cols.is_multiple_of(block)) {
            let reason = format!("rows of {shape:?} do not divide into blocks of {block}");
            return Err(r.bad(&name, reason));
        }
        let n = shape.iter().try_fold(1_u64, |n, &dim| n.checked_mul(dim));
        let n_bytes = n.and_then(|n| (n / block).checked_mul(kind.block_bytes() as u64));
        let start = data.checked_add(offset);
        let end = start.zip(n_bytes).and_then(|(start, n)| start.checked_add(n));
        let shape: Option<Vec<usize>> =
            shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let fits_usize = n.is_some_and(|n| usize::try_from(n).is_ok());
        let (Some(start), Some(end), Some(shape), true) = (start, end, shape, fits_usize) else {
            return Err(r.bad(&name, "its size overflows"));
        };
        if end > size {
            let reason =
                format!("ends at byte {end} of {size}; the file is truncated, download it again");
            return Err(r.bad(&name, reason));
        }
        let tensor = StoredTensor { kind, shape, bytes: start..end };
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(r.bad(&name, "stands twice"));
        }
    }
    Ok(tensors)
}

/// Reads little-endian values one after the other.
struct Reader<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: usize,
}

type Parsed<T> = Result<T, Stop>;

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Parsed<&'a [u8]> {
        let end = self.at.checked_add(n).ok_or(Stop::NeedMore)?;
        let bytes = self.bytes.get(self.at..end).ok_or(Stop::NeedMore)?;
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self, what: &str) -> Parsed<String> {
        let n = usize::try_from(self.u64()?).map_err(|_| Stop::NeedMore)?;
        let bytes = self.take(n)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.bad(what, "is not UTF-8")),
        }
    }

    fn value(&mut self, key: &str, kind: u32, depth: usize) -> Parsed<GgufValue> {
        use GgufValue::{Array, Bool, Float, Text, Unsigned};
        Ok(match kind {
            0 => Unsigned(u64::from(self.array::<1>()?[0])),
            1 => signed(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Unsigned(u64::from(u16::from_le_bytes(self.array()?))),
            3 => signed(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Unsigned(u64::from(self.u32()?)),
            5 => signed(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Float(widen(f32::from_le_bytes(self.array()?))),
            7 => Bool(self.array::<1>()?[0] != 0),
            8 => Text(self.text(key)?),
            9 if depth < MAX_DEPTH => {
                let (kind, n) = (self.u32()?, self.u64()?);
                // No allocation by a length that may be wrong: it grows with the bytes read.
                let mut values = Vec::new();
                for _ in 0..n {
                    values.push(self.value(key, kind, depth + 1)?);
                }
                Array(values)
            }
            10 => Unsigned(self.u64()?),
            11 => signed(i64::from_le_bytes(self.array()?)),
            12 => Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(self.bad(key, format!("has the unknown type {kind}"))),
        })
    }

    /// Name, shape with the outermost dimension first, type and offset.
    fn tensor(&mut self) -> Parsed<(String, Vec<u64>, u32, u64)> {
        let name = self.text("a tensor name")?;
        let n_dims = self.u32()?;
        if n_dims > MAX_DIMS {
            return Err(self.bad(&name, format!("has {n_dims} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..n_dims {
            shape.push(self.u64()?);
        }
        shape.reverse();
        Ok((name, shape, self.u32()?, self.u64()?))
    }

    fn bad(&self, field: &str, reason: impl Into<String>) -> Stop {
        Stop::Bad(Error::Gguf {
            file: self.file.into(),
            field: field.into(),
            reason: reason.into(),
        })
    }
}

fn signed(value: i64) -> GgufValue {
    u64::try_from(value).map_or(GgufValue::Negative(value), GgufValue::Unsigned)
}

/// The number that its shortest decimal spelling means: 1e-6 stays 1e-6.
fn widen(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}
