//! One step of AdamW on the device with means in 8 bits.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension, get_device_settings};
use burn::tensor::{Device, Int, IntDType, Tensor};
use globe_shaders::Kernel;

use crate::adamw::{AdamStep, AdamWOps};
use crate::launch::{contiguous, folded_groups, launch, words};
use crate::shapes::expect;
use crate::unpack::fields;
use crate::{Result, read_f32, read_i32, tensor_f32, tensor_i32};

/// Values that share a scale.
const BLOCK: usize = 256;
/// Entries of a table.
const CODES: usize = 256;
/// Decades that a table spans.
const DECADES: i32 = 7;

/// Both means of a parameter in 8 bits: for blocks of 256 values a scale, and for each value an index
/// into a table.
///
/// The tables are those of dynamic tree quantization (arXiv 2110.02861): seven decades up to 1, each
/// with twice as many values as the one below, evenly spaced. In the signed table the smallest
/// negative value gives its place to -1, so that the largest magnitude of a block is always exact and
/// unpacked means pack to the same codes again. A mean square above zero never becomes zero: its
/// mean would be divided by eps alone once a gradient is zero.
#[derive(Clone, Debug)]
pub struct ByteMeans {
    n: usize,
    codes: Tensor<1, Int>, // [blocks * 2 * 64], four codes each
    scales: Tensor<1>,     // [blocks * 2]
    tables: Tensor<1>,     // [2 * 256]
}

/// The table of the mean and that of the mean square, ascending.
fn tables() -> [Vec<f32>; 2] {
    let values = |finest: i32| {
        (0..DECADES).flat_map(move |decade| {
            let n = 1 << (decade + finest);
            let top = 10f64.powi(decade - (DECADES - 1));
            (0..n).map(move |i| ((0.1 + 0.9 * (f64::from(i) + 0.5) / f64::from(n)) * top) as f32)
        })
    };
    let negative = values(0).skip(1).map(|value| -value).chain([-1.0]);
    let mut signed: Vec<f32> = negative.chain([0.0]).chain(values(0)).chain([1.0]).collect();
    signed.sort_by(f32::total_cmp);
    [signed, [0.0].into_iter().chain(values(1)).chain([1.0]).collect()]
}

/// The index of the nearest value; the lower one from the middle.
fn nearest(table: &[f32], value: f32) -> usize {
    let below = table.partition_point(|entry| *entry <= value).max(1) - 1;
    let above = (below + 1).min(CODES - 1);
    if table[above] - value < value - table[below] { above } else { below }
}

impl ByteMeans {
    /// Means of `n` values, all zero.
    pub fn zeros(n: usize, device: &Device) -> Self {
        let blocks = n.div_ceil(BLOCK);
        // With a scale of zero any code stands for zero.
        Self::new(n, vec![0; blocks * BLOCK / 2], vec![0.0; 2 * blocks], device)
    }

    fn new(n: usize, codes: Vec<i32>, scales: Vec<f32>, device: &Device) -> Self {
        let (n_codes, n_scales) = (codes.len(), scales.len());
        Self {
            n,
            codes: tensor_i32(codes, [n_codes], device),
            scales: tensor_f32(scales, [n_scales], device),
            tables: tensor_f32(tables().concat(), [2 * CODES], device),
        }
    }

    /// The nearest to these means, which are of equal length.
    pub fn pack(means: [&[f32]; 2], device: &Device) -> Self {
        let (n, tables) = (means[0].len(), tables());
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for first in (0..n).step_by(BLOCK) {
            for (least, (values, table)) in means.iter().zip(&tables).enumerate() {
                let block = &values[first..n.min(first + BLOCK)];
                let scale = block.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                let divisor = if scale == 0.0 { 1.0 } else { scale };
                let mut bytes = [nearest(table, 0.0) as u8; BLOCK];
                for (byte, value) in bytes.iter_mut().zip(block) {
                    let least = if *value > 0.0 { least } else { 0 }; // 1 for squares
                    *byte = nearest(table, value / divisor).max(least) as u8;
                }
                codes.extend(bytes.as_chunks().0.iter().map(|four| i32::from_le_bytes(*four)));
                scales.push(scale);
            }
        }
        Self::new(n, codes, scales, device)
    }

    /// The means on the host.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the device failed.
    pub async fn unpack(&self) -> Result<[Vec<f32>; 2]> {
        let (codes, scales) = (read_i32(self.codes.clone()), read_f32(self.scales.clone()));
        let (codes, scales, tables) = (codes.await?, scales.await?, tables());
        let mut means = [Vec::with_capacity(self.n), Vec::with_capacity(self.n)];
        for (i, (codes, scale)) in codes.chunks_exact(BLOCK / 4).zip(scales).enumerate() {
            let (mean, table) = (&mut means[i % 2], &tables[i % 2]);
            let bytes = codes.iter().flat_map(|word| word.to_le_bytes());
            mean.extend(bytes.map(|code| table[usize::from(code)] * scale));
        }
        means.iter_mut().for_each(|mean| mean.truncate(self.n));
        Ok(means)
    }

    /// Bytes of the means of `n` values.
    pub fn size_bytes(n: usize) -> u64 {
        (n.div_ceil(BLOCK) * 2 * (BLOCK + size_of::<f32>())) as u64
    }
}

/// The op on backend primitives.
#[backend_extension(Cube, Flex: cfg(feature = "flex"), Autodiff: cfg(feature = "autodiff"))]
pub trait Adamw8bitOps: AdamWOps {
    /// The body is the oracle; see [`adamw_8bit`]. Returns parameter, codes and scales.
    fn adamw_8bit(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        tables: FloatTensor<Self>,
        step: AdamStep,
    ) -> (FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>) {
        let [n] = parameter.shape().dims();
        let blocks = n.div_ceil(BLOCK);
        let indices = Self::int_reshape(
            fields::<Self>(codes, &[0, 8, 16, 24], 0xff),
            [blocks, 2, BLOCK].into(),
        );
        let scales = Self::float_reshape(scales, [blocks, 2, 1].into());
        let table =
            |i: usize| Self::float_slice(tables.clone(), &[(i * CODES..(i + 1) * CODES).into()]);
        let of = |i: usize| [(0..blocks).into(), (i..i + 1).into(), (0..BLOCK).into()];
        let mean = |i: usize| {
            let index = Self::int_reshape(
                Self::int_slice(indices.clone(), &of(i)),
                [blocks * BLOCK].into(),
            );
            let values =
                Self::float_reshape(Self::float_select(table(i), 0, index), [blocks, BLOCK].into());
            let part = [(0..blocks).into(), (i..i + 1).into(), (0..1).into()];
            let scale = Self::float_slice(scales.clone(), &part);
            let values = Self::float_mul(values, Self::float_reshape(scale, [blocks, 1].into()));
            let values = Self::float_reshape(values, [blocks * BLOCK].into());
            Self::float_slice(values, &[(0..n).into()])
        };
        let (parameter, m, v) = Self::adamw(parameter, gradient, mean(0), mean(1), step);
        let (m, v) = (pack::<Self>(m, table(0), false), pack::<Self>(v, table(1), true));
        let codes = Self::int_cat(vec![m.0, v.0], 1);
        let scales = Self::float_cat(vec![m.1, v.1], 1);
        let codes = Self::int_reshape(codes, [blocks * BLOCK / 2].into());
        (parameter, codes, Self::float_reshape(scales, [2 * blocks].into()))
    }
}

/// Codes `[blocks, 64]`, four in a word, and scales `[blocks, 1]` of `values: [n]`.
fn pack<B: Backend>(
    values: FloatTensor<B>,
    table: FloatTensor<B>,
    are_squares: bool,
) -> (IntTensor<B>, FloatTensor<B>) {
    let ([n], device) = (values.shape().dims(), values.device());
    let blocks = n.div_ceil(BLOCK);
    let store = get_device_settings::<B>(&device).bool_dtype;
    let filler =
        B::float_zeros([blocks * BLOCK - n].into(), &device, burn::tensor::FloatDType::F32);
    let values = if n == blocks * BLOCK { values } else { B::float_cat(vec![values, filler], 0) };
    let values = B::float_reshape(values, [blocks, BLOCK].into());
    let scales = B::float_max_dim(B::float_abs(values.clone()), 1);
    let divisor = B::float_clamp_min(scales.clone(), f32::MIN_POSITIVE.into());
    let values = B::float_reshape(B::float_div(values, divisor), [blocks * BLOCK, 1].into());
    let is_positive = B::float_greater_elem(values.clone(), 0.0.into(), store);
    let least = B::bool_into_int(is_positive, IntDType::I32);
    // Above how many middles between neighbours in the table a value lies is its code.
    let sides = |from: usize| B::float_slice(table.clone(), &[(from..from + CODES - 1).into()]);
    let middles = B::float_mul_scalar(B::float_add(sides(0), sides(1)), 0.5.into());
    let shape = [blocks * BLOCK, CODES - 1];
    let middles = B::float_expand(B::float_reshape(middles, [1, CODES - 1].into()), shape.into());
    let is_above = B::float_greater(B::float_expand(values, shape.into()), middles, store);
    let codes = B::int_sum_dim(B::bool_into_int(is_above, IntDType::I32), 1);
    let codes = match are_squares {
        true => {
            let is_less = B::int_lower(codes.clone(), least.clone(), store);
            B::int_mask_where(codes, is_less, least)
        }
        false => codes,
    };
    let codes = B::int_reshape(codes, [blocks * BLOCK / 4, 4].into());
    let byte = |i: usize| {
        let part = [(0..blocks * BLOCK / 4).into(), (i..i + 1).into()];
        let byte = B::int_slice(codes.clone(), &part);
        B::bitwise_left_shift_scalar(byte, (8 * i as i32).into())
    };
    let words = (1..4).fold(byte(0), |words, i| B::bitwise_or(words, byte(i)));
    (B::int_reshape(words, [blocks, BLOCK / 4].into()), scales)
}

#[cfg(feature = "flex")]
impl Adamw8bitOps for burn::backend::Flex {}

#[cfg(feature = "autodiff")]
impl<B: Adamw8bitOps, C: crate::autodiff::Strategy> Adamw8bitOps
    for crate::autodiff::Autodiff<B, C>
{
}

impl Adamw8bitOps for CubeBackend {
    fn adamw_8bit(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        tables: FloatTensor<Self>,
        step: AdamStep,
    ) -> (FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>) {
        let [gradient] = contiguous([gradient]);
        let [n] = parameter.shape().dims();
        let blocks = n.div_ceil(BLOCK);
        let [scale, decay, keep, beta2, keep_sq, step_size, root, eps] = step.rounded();
        let groups = folded_groups(blocks as u32);
        let params =
            words![n, blocks, groups[0], scale, decay, keep, beta2, keep_sq, step_size, root, eps];
        let tensors = [&parameter, &gradient, &codes, &scales, &tables];
        launch(Kernel::Adamw8bit, &tensors, &params, groups);
        (parameter, codes, scales)
    }
}

/// One step of AdamW as [`crate::adamw()`] does it, but its means are packed again after it, so the
/// next step starts from rounded ones. `parameter, gradient: [n]`; returns parameter and means.
///
/// On the GPU their buffers themselves change, and so does every clone of them.
///
/// # Errors
/// [`crate::Error::Shape`] if lengths differ.
pub fn adamw_8bit(
    parameter: Tensor<1>,
    gradient: Tensor<1>,
    means: ByteMeans,
    step: &AdamStep,
) -> Result<(Tensor<1>, ByteMeans)> {
    let n = parameter.dims();
    expect("adamw_8bit", "gradient", gradient.dims(), n)?;
    expect("adamw_8bit", "means", [means.n], n)?;
    let (parameter, codes, scales) = Dispatch::adamw_8bit(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        means.codes.into_dispatch(),
        means.scales.into_dispatch(),
        means.tables.clone().into_dispatch(),
        *step,
    );
    let (codes, scales) = (Tensor::from_dispatch(codes), Tensor::from_dispatch(scales));
    Ok((Tensor::from_dispatch(parameter), ByteMeans { codes, scales, ..means }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_ascend_from_end_to_end() {
        let [signed, squares] = tables();
        for (table, first) in [(&signed, -1.0), (&squares, 0.0)] {
            assert_eq!((table.len(), table[0], table[CODES - 1]), (CODES, first, 1.0));
            assert!(table.windows(2).all(|pair| pair[0] < pair[1]), "{table:?}");
            assert!(table.contains(&0.0));
            for (i, value) in table.iter().enumerate() {
                assert_eq!(nearest(table, *value), i);
            }
        }
        // Values of the published tables: means of neighbours between 0.1 and 1, times a power of 10.
        assert!(
            signed.contains(&5.5e-7) && squares.contains(&3.25e-7) && squares.contains(&7.75e-7)
        );
    }
}
