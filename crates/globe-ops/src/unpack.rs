//! What packed words stand for, in Burn primitives: the oracle of the packed kernels.

use burn::backend::Backend;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{FloatDType, Shape, TensorData};
use globe_shaders::WeightFormat;

use crate::packed::BLOCK;

/// Where the parts of a float lie.
struct FloatBits {
    exponent: i32,
    mantissa: i32,
}

const HALF: FloatBits = FloatBits { exponent: 5, mantissa: 10 };
const SINGLE: FloatBits = FloatBits { exponent: 8, mantissa: 23 };

/// The weights `[rows, blocks * 32]` of packed `words` and `scales`.
pub(crate) fn unpack<B: Backend>(
    format: WeightFormat,
    words: IntTensor<B>,
    scales: IntTensor<B>,
    rows: usize,
    blocks: usize,
) -> FloatTensor<B> {
    let values = match format {
        WeightFormat::Q4 => {
            let nibbles = fields::<B>(words, &[0, 8, 16, 24, 4, 12, 20, 28], 0xf);
            float::<B>(B::int_sub_scalar(nibbles, 8.into()))
        }
        WeightFormat::Q8 => {
            // Sign extension: x ^ 128 - 128.
            let bytes = fields::<B>(words, &[0, 8, 16, 24], 0xff);
            let bytes = B::bitwise_xor_scalar(bytes, 128.into());
            float::<B>(B::int_sub_scalar(bytes, 128.into()))
        }
        WeightFormat::F16 => decode::<B>(fields::<B>(words, &[0, 16], 0xffff), &HALF),
        WeightFormat::Bf16 => {
            let halves = fields::<B>(words, &[0, 16], 0xffff);
            decode::<B>(B::bitwise_left_shift_scalar(halves, 16.into()), &SINGLE)
        }
        WeightFormat::F32 => decode::<B>(words, &SINGLE),
    };
    let width = blocks * BLOCK;
    if !format.is_scaled() {
        return B::float_reshape(values, [rows, width].into());
    }
    let scales = decode::<B>(fields::<B>(scales, &[0, 16], 0xffff), &HALF);
    let padded = blocks.next_multiple_of(8);
    let scales = B::float_reshape(scales, [rows, padded].into());
    let scales = B::float_slice(scales, &[(0..rows).into(), (0..blocks).into()]);
    let scales = B::float_reshape(scales, [rows, blocks, 1].into());
    let values = B::float_reshape(values, [rows, blocks, BLOCK].into());
    B::float_reshape(B::float_mul(values, scales), [rows, width].into())
}

/// The bits of each word from each of `shifts` on, one after the other.
pub(crate) fn fields<B: Backend>(words: IntTensor<B>, shifts: &[i32], mask: i32) -> IntTensor<B> {
    use burn::backend::TensorMetadata;
    let n = words.shape().num_elements();
    let words = B::int_reshape(words, [n, 1].into());
    let parts = shifts.iter().map(|shift| {
        let moved = B::bitwise_right_shift_scalar(words.clone(), (*shift).into());
        B::bitwise_and_scalar(moved, mask.into())
    });
    let parts = B::int_cat(parts.collect(), 1);
    B::int_reshape(parts, [n * shifts.len()].into())
}

fn float<B: Backend>(x: IntTensor<B>) -> FloatTensor<B> {
    B::int_into_float(x, FloatDType::F32)
}

/// The floats whose bits are given: `±(1 + mantissa) * 2^(exponent - bias)`, subnormals included.
fn decode<B: Backend>(bits: IntTensor<B>, layout: &FloatBits) -> FloatTensor<B> {
    use burn::backend::TensorMetadata;
    let device = bits.device();
    let FloatBits { exponent, mantissa } = *layout;
    let part = |shift: i32, mask: i32| {
        let moved = B::bitwise_right_shift_scalar(bits.clone(), shift.into());
        B::bitwise_and_scalar(moved, mask.into())
    };
    let n_exponents = 1usize << exponent;
    let bias = (n_exponents as i32 >> 1) - 1;
    // The exponent is looked up, so that powers of two are exact.
    let table = |value: &dyn Fn(i32) -> f32| {
        let values: Vec<f32> = (0..n_exponents as i32).map(value).collect();
        let data = TensorData::new(values, Shape::from([n_exponents]));
        let table = B::float_from_data(data, &device);
        B::float_select(table, 0, part(mantissa, n_exponents as i32 - 1))
    };
    let powers = table(&|e| (f64::from(e.max(1) - bias)).exp2() as f32);
    let ones = table(&|e| if e == 0 { 0.0 } else { 1.0 });
    let fraction = float::<B>(part(0, (1 << mantissa) - 1));
    let fraction = B::float_mul_scalar(fraction, (1.0 / f64::from(1 << mantissa)).into());
    let sign = float::<B>(part(exponent + mantissa, 1));
    let sign = B::float_add_scalar(B::float_mul_scalar(sign, (-2.0).into()), 1.0.into());
    B::float_mul(B::float_mul(B::float_add(ones, fraction), powers), sign)
}
