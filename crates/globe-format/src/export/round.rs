//! `f64` to the bytes of a stored float, rounded once: to nearest, to even from the middle.

use half::{bf16, f16};

use crate::dtype::Dtype;

/// The first value that the type cannot hold.
#[derive(Debug, PartialEq)]
pub(super) struct TooLarge {
    pub at: usize,
    pub value: f64,
}

/// Little-endian elements of a `dtype` that converts to `f32`.
pub(super) fn to_bytes(dtype: Dtype, values: &[f64]) -> Result<Vec<u8>, TooLarge> {
    match dtype {
        Dtype::Bf16 => encode(values, |value| {
            let rounded = bf16::from_f32(to_odd(value));
            rounded.is_finite().then(|| rounded.to_le_bytes())
        }),
        Dtype::F16 => encode(values, |value| {
            let rounded = f16::from_f32(to_odd(value));
            rounded.is_finite().then(|| rounded.to_le_bytes())
        }),
        _ => encode(values, |value| {
            let rounded = value as f32;
            rounded.is_finite().then(|| rounded.to_le_bytes())
        }),
    }
}

fn encode<const N: usize>(
    values: &[f64],
    round: impl Fn(f64) -> Option<[u8; N]>,
) -> Result<Vec<u8>, TooLarge> {
    let mut bytes = Vec::with_capacity(N * values.len());
    for (at, &value) in values.iter().enumerate() {
        bytes.extend(round(value).ok_or(TooLarge { at, value })?);
    }
    Ok(bytes)
}

/// The neighbour in `f32` whose last bit is odd, or the value itself where `f32` holds it. Rounding
/// that to a type of at most 22 bits gives what rounding the value at once would (Boldo and
/// Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
fn to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let (bits, back) = (nearest.to_bits(), f64::from(nearest));
    if back == value || bits & 1 == 1 || !value.is_finite() {
        return nearest;
    }
    // Bits order like the absolute value, and infinity comes after the largest.
    f32::from_bits(if value.abs() > back.abs() { bits + 1 } else { bits - 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bf16_of(value: f64) -> f64 {
        let bytes = to_bytes(Dtype::Bf16, &[value]).unwrap();
        bf16::from_le_bytes([bytes[0], bytes[1]]).to_f64()
    }

    fn f16_of(value: f64) -> f64 {
        let bytes = to_bytes(Dtype::F16, &[value]).unwrap();
        f16::from_le_bytes([bytes[0], bytes[1]]).to_f64()
    }

    /// The middle between two neighbours and what lies just beside it, far below the precision of
    /// f32, for every positive value of a type.
    fn check_middles(n: u16, decode: impl Fn(u16) -> f64, round: impl Fn(f64) -> f64) {
        for bits in 0..n {
            let (low, high) = (decode(bits), decode(bits + 1));
            let middle = low + (high - low) / 2.0;
            let even = if bits % 2 == 0 { low } else { high };
            assert_eq!((round(middle), round(-middle)), (even, -even), "{bits:#x}");
            assert_eq!(round(middle.next_up()), high, "{bits:#x}");
            assert_eq!(round(middle.next_down()), low, "{bits:#x}");
            assert_eq!((round(low), round(-low)), (low, -low), "{bits:#x}");
        }
    }

    #[test]
    fn rounds_to_nearest_once() {
        check_middles(bf16::MAX.to_bits(), |bits| bf16::from_bits(bits).to_f64(), bf16_of);
        check_middles(f16::MAX.to_bits(), |bits| f16::from_bits(bits).to_f64(), f16_of);
        let two_roundings = 1.0 + 2.0_f64.powi(-8) + 2.0_f64.powi(-40);
        assert_eq!(f64::from(bf16::from_f32(two_roundings as f32)), 1.0);
        assert_eq!(bf16_of(two_roundings), 1.0 + 2.0_f64.powi(-7));
    }

    #[test]
    fn keeps_the_sign_of_zero_and_tiny_values() {
        let bytes = to_bytes(Dtype::Bf16, &[-0.0, -1e-300, 1e-300]).unwrap();
        assert_eq!(bytes, [0, 0x80, 0, 0x80, 0, 0]);
        let bytes = to_bytes(Dtype::F32, &[0.1, -0.0]).unwrap();
        assert_eq!(bytes, [0.1_f32.to_le_bytes(), (-0.0_f32).to_le_bytes()].concat());
    }

    #[test]
    fn names_what_is_too_large() {
        for (dtype, largest, value) in [
            (Dtype::F16, 65504.0, 65520.0),
            (Dtype::Bf16, bf16::MAX.to_f64(), 3.4e38),
            (Dtype::F32, f64::from(f32::MAX), 1e39),
            (Dtype::F32, 0.0, f64::NAN),
        ] {
            assert!(to_bytes(dtype, &[largest, -largest]).is_ok());
            let error = to_bytes(dtype, &[largest, -value]).unwrap_err();
            assert!(error.at == 1 && error.value.to_bits() == (-value).to_bits(), "{error:?}");
        }
    }
}
