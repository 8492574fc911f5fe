//! The inverse DCT of libjpeg's accurate integer method (Loeffler, Ligtenberg and Moschytz).
//!
//! Two passes of one-dimensional transforms with 13-bit constants; the first keeps two more bits.
//! Values wrap and saturate at 16 bits where libjpeg-turbo's vector code does, which only damaged
//! files reach.

use std::num::Wrapping;

use super::{BLOCK_EDGE, BLOCK_SIZE, Block};

type Int = Wrapping<i32>;

/// Fraction bits of the constants.
const CONST_BITS: usize = 13;
/// Fraction bits that columns pass on to rows.
const PASS_BITS: usize = 2;
/// The transform yields eight times the samples.
const SCALE_BITS: usize = 3;

const FIX_0_298631336: Int = Wrapping(2446);
const FIX_0_390180644: Int = Wrapping(3196);
const FIX_0_541196100: Int = Wrapping(4433);
const FIX_0_765366865: Int = Wrapping(6270);
const FIX_0_899976223: Int = Wrapping(7373);
const FIX_1_175875602: Int = Wrapping(9633);
const FIX_1_501321110: Int = Wrapping(12299);
const FIX_1_847759065: Int = Wrapping(15137);
const FIX_1_961570560: Int = Wrapping(16069);
const FIX_2_053119869: Int = Wrapping(16819);
const FIX_2_562915447: Int = Wrapping(20995);
const FIX_3_072711026: Int = Wrapping(25172);

/// Dequantises and transforms `block` into 8 rows of 8 samples at the start of `out`. `flat`
/// promises that only the DC coefficient is not zero.
#[inline]
pub(super) fn inverse_dct(
    block: &Block,
    quantisation: &[u16; BLOCK_SIZE],
    flat: bool,
    out: &mut [u8],
    stride: usize,
) {
    if flat {
        // What both passes come to.
        let dc = wrap(dequantise(block[0], quantisation[0]) << PASS_BITS);
        let level = sample(descale(dc, PASS_BITS + SCALE_BITS));
        for row in out.chunks_mut(stride).take(BLOCK_EDGE) {
            row[..BLOCK_EDGE].fill(level);
        }
        return;
    }
    // Vector code skips the first pass for all columns or none, and does not saturate then.
    let skipped = block[BLOCK_EDGE..].iter().all(|&coefficient| coefficient == 0);
    let mut columns = [[Wrapping(0); BLOCK_EDGE]; BLOCK_EDGE];
    for x in 0..BLOCK_EDGE {
        let column: [Int; BLOCK_EDGE] = std::array::from_fn(|y| {
            dequantise(block[y * BLOCK_EDGE + x], quantisation[y * BLOCK_EDGE + x])
        });
        columns[x] = if skipped {
            [wrap(column[0] << PASS_BITS); BLOCK_EDGE]
        } else if column[1..].iter().all(|value| value.0 == 0) {
            [saturate(column[0] << PASS_BITS); BLOCK_EDGE]
        } else {
            transform(column, CONST_BITS - PASS_BITS)
        };
    }
    for (y, row) in out.chunks_mut(stride).take(BLOCK_EDGE).enumerate() {
        let values =
            transform(columns.map(|column| column[y]), CONST_BITS + PASS_BITS + SCALE_BITS);
        for (sample_out, value) in row.iter_mut().zip(values) {
            *sample_out = sample(value);
        }
    }
}

/// The one-dimensional transform, without `shift` of its fraction bits, saturated to 16 bits.
#[inline(always)]
fn transform(input: [Int; BLOCK_EDGE], shift: usize) -> [Int; BLOCK_EDGE] {
    let [in0, in1, in2, in3, in4, in5, in6, in7] = input;

    let common = (in2 + in6) * FIX_0_541196100;
    let even2 = common - in6 * FIX_1_847759065;
    let even3 = common + in2 * FIX_0_765366865;
    let even0 = wrap(in0 + in4) << CONST_BITS;
    let even1 = wrap(in0 - in4) << CONST_BITS;
    let even = [even0 + even3, even1 + even2, even1 - even2, even0 - even3];

    let (sum73, sum51) = (wrap(in7 + in3), wrap(in5 + in1));
    let common = (sum73 + sum51) * FIX_1_175875602;
    let sum73 = common - sum73 * FIX_1_961570560;
    let sum51 = common - sum51 * FIX_0_390180644;
    let sum71 = (in7 + in1) * FIX_0_899976223;
    let sum53 = (in5 + in3) * FIX_2_562915447;
    let odd = [
        in1 * FIX_1_501321110 - sum71 + sum51,
        in3 * FIX_3_072711026 - sum53 + sum73,
        in5 * FIX_2_053119869 - sum53 + sum51,
        in7 * FIX_0_298631336 - sum71 + sum73,
    ];

    std::array::from_fn(|idx| {
        let value = if idx < 4 { even[idx] + odd[idx] } else { even[7 - idx] - odd[7 - idx] };
        saturate(descale(value, shift))
    })
}

fn dequantise(coefficient: i16, step: u16) -> Int {
    wrap(Wrapping(i32::from(coefficient)) * Wrapping(i32::from(step)))
}

/// Divides by a power of two, rounding halves up.
fn descale(value: Int, bits: usize) -> Int {
    (value + (Wrapping(1) << (bits - 1))) >> bits
}

fn wrap(value: Int) -> Int {
    Wrapping(i32::from(value.0 as i16))
}

fn saturate(value: Int) -> Int {
    Wrapping(value.0.clamp(i32::from(i16::MIN), i32::from(i16::MAX)))
}

/// From signed values to levels.
fn sample(value: Int) -> u8 {
    (value.0 + 128).clamp(0, 255) as u8
}
