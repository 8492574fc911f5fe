//! Element types of GGUF and their blocks as `f32`.
//!
//! Layouts: `ggml-common.h` of ggml. A block of 32 starts with its f16 scale (and minimum); low
//! nibbles hold its first half, high nibbles the second. A block of 256 has its own scales inside.

use half::{bf16, f16};

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GgufType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an `F32`.
    Bf16,
    /// 4 bits and a scale per 32.
    Q4_0,
    /// 4 bits, a scale and a minimum per 32.
    Q4_1,
    /// 5 bits and a scale per 32.
    Q5_0,
    /// 5 bits, a scale and a minimum per 32.
    Q5_1,
    /// 8 bits and a scale per 32.
    Q8_0,
    /// 4 bits per weight in blocks of 256.
    Q4K,
    /// 5 bits per weight in blocks of 256.
    Q5K,
    /// 6 bits per weight in blocks of 256.
    Q6K,
}

/// Number in a file, spelling, values and bytes of a block.
const TYPES: [(GgufType, u32, &str, usize, usize); 11] = [
    (GgufType::F32, 0, "F32", 1, 4),
    (GgufType::F16, 1, "F16", 1, 2),
    (GgufType::Q4_0, 2, "Q4_0", 32, 18),
    (GgufType::Q4_1, 3, "Q4_1", 32, 20),
    (GgufType::Q5_0, 6, "Q5_0", 32, 22),
    (GgufType::Q5_1, 7, "Q5_1", 32, 24),
    (GgufType::Q8_0, 8, "Q8_0", 32, 34),
    (GgufType::Q4K, 12, "Q4_K", 256, 144),
    (GgufType::Q5K, 13, "Q5_K", 256, 176),
    (GgufType::Q6K, 14, "Q6_K", 256, 210),
    (GgufType::Bf16, 30, "BF16", 1, 2),
];

impl GgufType {
    /// The type with this number in a file.
    pub(super) fn from_id(id: u32) -> Option<Self> {
        TYPES.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// Every spelling, for messages.
    pub(super) fn known() -> String {
        TYPES.map(|row| row.2).join(", ")
    }

    fn row(self) -> &'static (Self, u32, &'static str, usize, usize) {
        // The table has a row for every type, which a test checks.
        TYPES.iter().find(|row| row.0 == self).unwrap_or(&TYPES[0])
    }

    /// Spelling of the format.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Values in a block.
    pub fn block_len(self) -> usize {
        self.row().3
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.row().4
    }
}

/// Appends the values of whole blocks.
pub(super) fn append_f32(kind: GgufType, bytes: &[u8], out: &mut Vec<f32>) {
    let blocks = bytes.chunks_exact(kind.block_bytes());
    match kind {
        GgufType::F32 => out.extend(blocks.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        GgufType::F16 => out.extend(blocks.map(|b| half_at(b, 0))),
        GgufType::Bf16 => {
            out.extend(blocks.map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()));
        }
        GgufType::Q4_0 => blocks.for_each(|b| {
            let d = half_at(b, 0);
            out.extend(nibbles(&b[2..]).map(|q| d * (f32::from(q) - 8.0)));
        }),
        GgufType::Q4_1 => blocks.for_each(|b| {
            let (d, m) = (half_at(b, 0), half_at(b, 2));
            out.extend(nibbles(&b[4..]).map(|q| d * f32::from(q) + m));
        }),
        GgufType::Q5_0 => blocks.for_each(|b| {
            let d = half_at(b, 0);
            out.extend(five_bits(&b[2..6], &b[6..]).map(|q| d * (f32::from(q) - 16.0)));
        }),
        GgufType::Q5_1 => blocks.for_each(|b| {
            let (d, m) = (half_at(b, 0), half_at(b, 2));
            out.extend(five_bits(&b[4..8], &b[8..]).map(|q| d * f32::from(q) + m));
        }),
        GgufType::Q8_0 => blocks.for_each(|b| {
            let d = half_at(b, 0);
            out.extend(b[2..].iter().map(|&q| d * f32::from(q as i8)));
        }),
        GgufType::Q4K => blocks.for_each(|b| append_k(b, &[], &b[16..], out)),
        GgufType::Q5K => blocks.for_each(|b| append_k(b, &b[16..48], &b[48..], out)),
        GgufType::Q6K => blocks.for_each(|b| append_q6_k(b, out)),
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// All low nibbles, then all high ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|byte| byte & 0xf).chain(bytes.iter().map(|byte| byte >> 4))
}

/// Nibbles with a fifth bit each, from one bit field.
fn five_bits<'a>(high: &'a [u8], low: &'a [u8]) -> impl Iterator<Item = u8> {
    let bit = |i: usize| high[i / 8] >> (i % 8) & 1;
    nibbles(low).enumerate().map(move |(i, low)| low | bit(i) << 4)
}

/// Q4_K and Q5_K: eight groups of 32, each with a 6-bit scale and minimum. Of every 32 bytes the
/// low nibbles are one group and the high ones the next; `high` has bit `g` of every value.
fn append_k(block: &[u8], high: &[u8], low: &[u8], out: &mut Vec<f32>) {
    let (d, min) = (half_at(block, 0), half_at(block, 2));
    let packed = &block[4..16];
    for group in 0..8 {
        let (scale, offset) = six_bits(packed, group);
        let (scale, offset) = (d * f32::from(scale), min * f32::from(offset));
        let low = &low[32 * (group / 2)..][..32];
        for (i, byte) in low.iter().enumerate() {
            let nibble = if group % 2 == 0 { byte & 0xf } else { byte >> 4 };
            let fifth = high.get(i).map_or(0, |bits| bits >> group & 1);
            out.push(scale * f32::from(nibble | fifth << 4) - offset);
        }
    }
}

/// Scale and minimum of a group. Those of the last four keep their upper two bits in the bytes of
/// the first four.
fn six_bits(packed: &[u8], group: usize) -> (u8, u8) {
    let j = group % 4;
    let (scale, min, rest) = (packed[j], packed[4 + j], packed[8 + j]);
    match group < 4 {
        true => (scale & 0x3f, min & 0x3f),
        false => (rest & 0xf | (scale >> 2 & 0x30), rest >> 4 | (min >> 2 & 0x30)),
    }
}

/// Two halves of 128, each four groups of 32: low nibbles of 32 bytes, of the next 32, then the high
/// nibbles of both, with two upper bits per value. A scale counts for 16 values.
fn append_q6_k(block: &[u8], out: &mut Vec<f32>) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for v in 0..256 {
        let (part, group, i) = (v / 128, v % 128 / 32, v % 32);
        let low = low[64 * part + 32 * (group % 2) + i] >> (4 * (group / 2)) & 0xf;
        let high = high[32 * part + i] >> (2 * group) & 3;
        let q = f32::from(low | high << 4) - 32.0;
        out.push(d * f32::from(scales[v / 16] as i8) * q);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_in_the_table() {
        use GgufType::*;
        for kind in [F32, F16, Bf16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K] {
            let row = kind.row();
            assert_eq!((row.0, GgufType::from_id(row.1)), (kind, Some(kind)));
            let mut out = Vec::new();
            append_f32(kind, &vec![0; 2 * kind.block_bytes()], &mut out);
            assert_eq!(out.len(), 2 * kind.block_len());
        }
        assert_eq!(GgufType::from_id(10), None);
    }
}
