//! Weight formats: rows of `f32` to packed words and back.
//!
//! A row is cut into blocks of [`BLOCK`] values, the last one filled up with zeros, and every
//! format stores a fixed number of `u32` words per block. `q4` and `q8` add one f16 scale per
//! block, apart from the words. The layouts, value `v` of a block at:
//!
//! | format | words | value `v` | meaning |
//! |---|---|---|---|
//! | `q4` | 4 | word `v / 8`, byte `v % 4`, low nibble if `v % 8 < 4`, else high | `(nibble - 8) * scale` |
//! | `q8` | 8 | word `v / 4`, byte `v % 4` | `i8 * scale` |
//! | `f16` | 16 | word `v / 2`, low half if `v` is even | itself |
//! | `f32` | 32 | word `v` | itself |
//!
//! [`dequantize`] is what kernels are tested against.

mod scale;

use std::fmt;

use half::f16;

use self::scale::{Q4, Q8};

/// Values per block.
pub const BLOCK: usize = 32;

/// Rows of scales are padded to a multiple of this, so that a row starts at 16 bytes.
const SCALE_ALIGN: usize = 8;

/// How a weight matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WeightFormat {
    /// 4 bits and a share of a scale: 4.5 bits per weight.
    Q4,
    /// 8 bits and a share of a scale: 8.5 bits per weight.
    Q8,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

impl WeightFormat {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Q4, Self::Q8, Self::F16, Self::F32];

    /// Spelling in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4 => "q4",
            Self::Q8 => "q8",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }

    /// The format spelled `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Words that one block takes.
    pub const fn words_per_block(self) -> usize {
        match self {
            Self::Q4 => 4,
            Self::Q8 => 8,
            Self::F16 => 16,
            Self::F32 => 32,
        }
    }

    /// True when a scale per block stands beside the words.
    pub const fn has_scales(self) -> bool {
        matches!(self, Self::Q4 | Self::Q8)
    }

    /// Words of one row of `cols` values.
    pub const fn words_per_row(self, cols: usize) -> usize {
        cols.div_ceil(BLOCK) * self.words_per_block()
    }

    /// Scales of one row of `cols` values, the padding included; 0 without scales.
    pub const fn scales_per_row(self, cols: usize) -> usize {
        match self.has_scales() {
            true => cols.div_ceil(BLOCK).next_multiple_of(SCALE_ALIGN),
            false => 0,
        }
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A matrix as a kernel reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quantized {
    /// `[rows, words_per_row]`.
    pub words: Vec<u32>,
    /// f16 bits, `[rows, scales_per_row]`, the padding zero; empty for formats without scales.
    pub scales: Vec<u16>,
}

/// Why values cannot be stored in a format, or words cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QuantError {
    /// A value is NaN or infinite: the weights are damaged.
    #[error("{value} at row {row}, column {col}; the weights are damaged, download them again")]
    NotFinite {
        /// Row of the value.
        row: usize,
        /// Column of the value.
        col: usize,
        /// The value.
        value: f32,
    },
    /// A value is too large for the format: use more bits.
    #[error(
        "{value} at row {row}, column {col} is beyond {format}, which ends at {limit}; use more bits"
    )]
    OutOfRange {
        /// Row of the value.
        row: usize,
        /// Column of the value.
        col: usize,
        /// The value.
        value: f32,
        /// The format.
        format: WeightFormat,
        /// Largest magnitude that it stores.
        limit: f32,
    },
    /// A buffer does not hold the matrix: a caller's mistake.
    #[error("{what} of a {rows} x {cols} {format} matrix: expected {expected}, got {got}")]
    Size {
        /// Which buffer.
        what: &'static str,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// Format of the matrix.
        format: WeightFormat,
        /// Elements needed.
        expected: usize,
        /// Elements given.
        got: usize,
    },
}

#[cfg(not(target_arch = "wasm32"))]
impl QuantError {
    /// The same error in a matrix where `rows` rows come before.
    pub(crate) fn after(mut self, rows: usize) -> Self {
        if let Self::NotFinite { row, .. } | Self::OutOfRange { row, .. } = &mut self {
            *row += rows;
        }
        self
    }
}

/// Packs `values: [rows, cols]`. The scale of a block is the one, among those searched, that leaves
/// the smallest squared error after it is rounded to f16; a block that can be stored exactly is.
/// The same values give the same words on every platform.
///
/// # Errors
/// [`QuantError::NotFinite`], [`QuantError::OutOfRange`], or [`QuantError::Size`] if `values` does
/// not hold `rows * cols`.
pub fn quantize(
    format: WeightFormat,
    values: &[f32],
    rows: usize,
    cols: usize,
) -> Result<Quantized, QuantError> {
    check_size("values", (format, rows, cols), rows * cols, values.len())?;
    let mut out = Quantized {
        words: Vec::with_capacity(rows * format.words_per_row(cols)),
        scales: Vec::with_capacity(rows * format.scales_per_row(cols)),
    };
    if cols == 0 {
        return Ok(out);
    }
    for (row, values) in values.chunks_exact(cols).enumerate() {
        for (i, given) in values.chunks(BLOCK).enumerate() {
            let mut block = [0.0; BLOCK];
            block[..given.len()].copy_from_slice(given);
            pack_block(format, &block, &mut out).map_err(|bad| bad.at(row, i * BLOCK, format))?;
        }
        out.scales.resize((row + 1) * format.scales_per_row(cols), 0);
    }
    Ok(out)
}

/// The values that words and scales stand for: `[rows, cols]`, padding left out.
///
/// # Errors
/// [`QuantError::Size`] if a buffer does not hold the matrix.
pub fn dequantize(
    format: WeightFormat,
    words: &[u32],
    scales: &[u16],
    rows: usize,
    cols: usize,
) -> Result<Vec<f32>, QuantError> {
    let (words_per_row, scales_per_row) = (format.words_per_row(cols), format.scales_per_row(cols));
    check_size("words", (format, rows, cols), rows * words_per_row, words.len())?;
    check_size("scales", (format, rows, cols), rows * scales_per_row, scales.len())?;
    let mut values = Vec::with_capacity(rows * cols);
    for row in 0..rows {
        let words = &words[row * words_per_row..][..words_per_row];
        let scales = &scales[row * scales_per_row..][..scales_per_row];
        values.extend((0..cols).map(|col| value_at(format, words, scales, col)));
    }
    Ok(values)
}

/// Value `col` of a row.
fn value_at(format: WeightFormat, words: &[u32], scales: &[u16], col: usize) -> f32 {
    let (block, v) = (col / BLOCK, col % BLOCK);
    let words = &words[block * format.words_per_block()..][..format.words_per_block()];
    let scale = || f16::from_bits(scales[block]).to_f32();
    match format {
        WeightFormat::Q4 => {
            let shift = 8 * (v % 4) + if v % 8 < 4 { 0 } else { 4 };
            let nibble = words[v / 8] >> shift & 0xf;
            (nibble as f32 - 8.0) * scale()
        }
        WeightFormat::Q8 => f32::from(words[v / 4].to_le_bytes()[v % 4] as i8) * scale(),
        WeightFormat::F16 => f16::from_bits((words[v / 2] >> (16 * (v % 2))) as u16).to_f32(),
        WeightFormat::F32 => f32::from_bits(words[v]),
    }
}

/// A value of a block that the format refuses.
struct Refused {
    at: usize,
    value: f32,
    limit: f32,
}

impl Refused {
    fn at(self, row: usize, first_col: usize, format: WeightFormat) -> QuantError {
        let Self { at, value, limit } = self;
        let col = first_col + at;
        match value.is_finite() {
            true => QuantError::OutOfRange { row, col, value, format, limit },
            false => QuantError::NotFinite { row, col, value },
        }
    }
}

/// Appends one block.
fn pack_block(
    format: WeightFormat,
    block: &[f32; BLOCK],
    out: &mut Quantized,
) -> Result<(), Refused> {
    let limit = match format {
        WeightFormat::Q4 => Q4.limit(),
        WeightFormat::Q8 => Q8.limit(),
        WeightFormat::F16 => f16::MAX.to_f32(),
        WeightFormat::F32 => f32::MAX,
    };
    // NaN is not within any limit.
    let within = |x: f32| x.abs() <= limit;
    if let Some(at) = block.iter().position(|&x| !within(x)) {
        return Err(Refused { at, value: block[at], limit });
    }
    match format {
        WeightFormat::Q4 => {
            let (scale, q) = Q4.quantize(block);
            out.scales.push(scale.to_bits());
            out.words.extend(q.as_chunks::<8>().0.iter().map(pack_nibbles));
        }
        WeightFormat::Q8 => {
            let (scale, q) = Q8.quantize(block);
            out.scales.push(scale.to_bits());
            let bytes = q.as_chunks::<4>().0.iter().map(|q| q.map(|q| q as u8));
            out.words.extend(bytes.map(u32::from_le_bytes));
        }
        WeightFormat::F16 => {
            let pairs = block.as_chunks::<2>().0.iter();
            let halves = pairs.map(|pair| pair.map(|x| u32::from(f16::from_f32(x).to_bits())));
            out.words.extend(halves.map(|[low, high]| low | high << 16));
        }
        WeightFormat::F32 => out.words.extend(block.map(f32::to_bits)),
    }
    Ok(())
}

/// Eight values, each from -8 to 7: the first four in the low nibbles.
fn pack_nibbles(q: &[i8; 8]) -> u32 {
    let nibble = |i: usize| (q[i] + 8) as u8;
    u32::from_le_bytes([0, 1, 2, 3].map(|i| nibble(i) | nibble(i + 4) << 4))
}

fn check_size(
    what: &'static str,
    (format, rows, cols): (WeightFormat, usize, usize),
    expected: usize,
    got: usize,
) -> Result<(), QuantError> {
    if expected == got {
        return Ok(());
    }
    Err(QuantError::Size { what, rows, cols, format, expected, got })
}
