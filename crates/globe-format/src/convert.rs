//! Stored floats to `f32`, checked on the way: NaN and infinities are refused.
//!
//! Bytes are read by value, so a tensor may start at any offset. Each block is converted and
//! scanned while it is in cache; both loops vectorise.

use crate::dtype::Dtype;

/// Elements per block: 16 KiB of output stays in the first-level cache.
const BLOCK: usize = 4096;

/// The first value that is not finite.
#[derive(Debug, PartialEq)]
pub(crate) struct NotFinite {
    pub at: usize,
    pub value: f32,
}

/// Appends `bytes`, elements of a `dtype` that converts, to `out`.
pub(crate) fn append_f32(dtype: Dtype, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), NotFinite> {
    match dtype {
        Dtype::Bf16 => append(bytes, out, |b| bf16(u16::from_le_bytes(b))),
        Dtype::F16 => append(bytes, out, |b| f16(u16::from_le_bytes(b))),
        _ => append(bytes, out, f32::from_le_bytes),
    }
}

/// Checks `bytes`, elements of a `dtype` that converts, without converting them.
pub(crate) fn check_finite(dtype: Dtype, bytes: &[u8]) -> Result<(), NotFinite> {
    let half = |exponent| all_finite(bytes, |b| u16::from_le_bytes(b) & exponent != exponent);
    let is_finite = match dtype {
        Dtype::Bf16 => half(0x7f80),
        Dtype::F16 => half(0x7c00),
        _ => all_finite(bytes, |b| u32::from_le_bytes(b) & 0x7f80_0000 != 0x7f80_0000),
    };
    // Converting finds the first that is not.
    if is_finite { Ok(()) } else { append_f32(dtype, bytes, &mut Vec::new()) }
}

fn all_finite<const N: usize>(bytes: &[u8], is_finite: impl Fn([u8; N]) -> bool) -> bool {
    let block = |block: &[[u8; N]]| block.iter().fold(true, |all, &b| all & is_finite(b));
    bytes.as_chunks::<N>().0.chunks(BLOCK).all(block)
}

fn append<const N: usize>(
    bytes: &[u8],
    out: &mut Vec<f32>,
    convert: impl Fn([u8; N]) -> f32,
) -> Result<(), NotFinite> {
    for block in bytes.as_chunks::<N>().0.chunks(BLOCK) {
        let start = out.len();
        out.extend(block.iter().map(|&element| convert(element)));
        let largest = out[start..].iter().fold(0, |largest, x| largest.max(magnitude(*x)));
        if largest >= magnitude(f32::INFINITY) {
            return Err(first_not_finite(out, start));
        }
    }
    Ok(())
}

/// The bits without the sign, which order like the absolute value; NaN is above infinity.
fn magnitude(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

#[cold]
fn first_not_finite(values: &[f32], start: usize) -> NotFinite {
    let at = values[start..].iter().position(|x| !x.is_finite()).map_or(start, |i| start + i);
    NotFinite { at, value: values[at] }
}

fn bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Shifts the fields into place and corrects the exponent bias, 15 against 127, by one exact
/// multiplication, which also normalises subnormals. Needs no branch, so it vectorises.
fn f16(bits: u16) -> f32 {
    const TWO_POW_112: f32 = f32::from_bits((127 + 112) << 23);
    const INFINITY: u32 = 0x7c00;
    let magnitude = u32::from(bits & 0x7fff);
    let finite = f32::from_bits(magnitude << 13) * TWO_POW_112;
    // An f16 exponent of all ones would become 2^16; set all f32 exponent bits instead.
    let special = if magnitude >= INFINITY { 0x7f80_0000 } else { 0 };
    f32::from_bits(finite.to_bits() | special | u32::from(bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_types_match_the_half_crate_bit_for_bit() {
        for bits in 0..=u16::MAX {
            let (brain, half) = (half::bf16::from_bits(bits), half::f16::from_bits(bits));
            assert_eq!(bf16(bits).is_nan(), brain.is_nan(), "{bits:#x}");
            assert_eq!(f16(bits).is_nan(), half.is_nan(), "{bits:#x}");
            if !brain.is_nan() {
                assert_eq!(bf16(bits).to_bits(), brain.to_f32().to_bits(), "{bits:#x}");
            }
            if !half.is_nan() {
                assert_eq!(f16(bits).to_bits(), half.to_f32().to_bits(), "{bits:#x}");
            }
        }
    }

    #[test]
    fn converts_from_unaligned_bytes_across_blocks() {
        let values: Vec<f32> = (0..2 * BLOCK + 3).map(|i| i as f32 * 0.25 - 900.0).collect();
        for offset in 0..4 {
            let mut bytes = vec![0xff; offset];
            bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
            let mut out = Vec::new();
            append_f32(Dtype::F32, &bytes[offset..], &mut out).unwrap();
            assert_eq!(out, values);
        }
    }

    #[test]
    fn reports_the_first_value_that_is_not_finite() {
        for at in [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 2] {
            let mut values = vec![f32::MAX; 2 * BLOCK + 3];
            values[at..].fill(f32::NEG_INFINITY);
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            let error = append_f32(Dtype::F32, &bytes, &mut Vec::new()).unwrap_err();
            assert_eq!(error, NotFinite { at, value: f32::NEG_INFINITY });
        }
        for (dtype, bits) in [(Dtype::Bf16, 0xff80_u16), (Dtype::F16, 0xfc00), (Dtype::F16, 0x7e00)]
        {
            let bytes = [0_u16.to_le_bytes(), bits.to_le_bytes()].concat();
            assert_eq!(append_f32(dtype, &bytes, &mut Vec::new()).unwrap_err().at, 1);
        }
    }

    #[test]
    fn keeps_extremes() {
        for value in [f32::MIN_POSITIVE, 1e-45, f32::MAX, -0.0] {
            let mut out = Vec::new();
            append_f32(Dtype::F32, &value.to_le_bytes(), &mut out).unwrap();
            assert_eq!(out[0].to_bits(), value.to_bits());
        }
    }
}
