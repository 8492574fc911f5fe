//! Matrices as the packed kernels read them.

use std::borrow::Cow;

use burn::backend::wgpu::{CubeBackend, CubeTensor};
use burn::tensor::{DType, Int, Shape, Tensor};
pub use globe_shaders::WeightFormat;

#[cfg(doc)]
use crate::Error;
use crate::advance::on_gpu;
use crate::device::Variant;
use crate::shapes::{expect, supported};
use crate::upload::Uploads;
use crate::{Compute, Result};

/// Weights of a block, which share one scale.
pub const BLOCK: usize = 32;
/// Rows of scales are filled up to a multiple of this.
const SCALES: usize = 8;

/// A weight matrix `[rows, cols]` on the device, packed.
///
/// Rows are cut into blocks of 32 columns. Parts hold consecutive rows, because an adapter may
/// bind less than a whole table.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    pub(crate) format: WeightFormat,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) parts: Vec<PackedPart>,
    pub(crate) variant: Variant,
    /// Stand in for what a call leaves out: every binding needs a buffer of its own.
    pub(crate) nothing: [Tensor<1>; 3],
}

/// Consecutive rows of a matrix.
#[derive(Clone, Debug)]
pub(crate) struct PackedPart {
    pub(crate) first: usize,
    pub(crate) rows: usize,
    pub(crate) words: Tensor<1, Int>,
    pub(crate) scales: Tensor<1, Int>,
}

impl PackedMatrix {
    /// A matrix without rows yet.
    pub fn new(format: WeightFormat, cols: usize, compute: &Compute) -> Self {
        let nothing = compute.nothing.clone();
        Self { format, rows: 0, cols, parts: Vec::new(), variant: compute.variant, nothing }
    }

    /// Appends `rows` rows. `words`: little-endian, [`Self::row_bytes`] each; `scales`: f16,
    /// [`Self::row_scale_bytes`] each, empty for formats without.
    ///
    /// # Errors
    /// [`Error::Shape`] if the bytes do not hold the rows, [`Error::TooLarge`] if the adapter
    /// cannot bind them, [`Error::Device`] if it was lost.
    pub fn push_part(
        &mut self,
        rows: usize,
        words: Cow<'_, [u8]>,
        scales: Cow<'_, [u8]>,
        compute: &Compute,
    ) -> Result<()> {
        let sizes = Self::room_bytes(self.format, self.cols, rows);
        let n_scales = sizes.get(1).copied().unwrap_or(0);
        expect("push_part", "scales", [scales.len()], [n_scales])?;
        let mut uploads = Uploads::begin(&sizes, compute)?;
        uploads.write(0, &words)?;
        if n_scales > 0 {
            uploads.write(1, &scales)?;
        }
        self.push_rooms(rows, &mut uploads, 0)
    }

    /// Sizes of the rooms of `rows` rows of `cols` weights ([`Uploads::begin`]): one of words, and one of scales for
    /// formats that have them.
    pub fn room_bytes(format: WeightFormat, cols: usize, rows: usize) -> Vec<usize> {
        let mut rooms = vec![rows * Self::row_bytes(format, cols)];
        if format.is_scaled() {
            rooms.push(rows * Self::row_scale_bytes(format, cols));
        }
        rooms
    }

    /// Appends `rows` rows that have come into the rooms from `first_room` on ([`Self::room_bytes`]).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the rooms do not hold the rows, [`Error::Device`](crate::Error::Device)
    /// if the device was lost.
    ///
    /// # Panics
    /// If there are no such rooms, or one was emptied before.
    pub fn push_rooms(
        &mut self,
        rows: usize,
        uploads: &mut Uploads<'_>,
        first_room: usize,
    ) -> Result<()> {
        let sizes = Self::room_bytes(self.format, self.cols, rows);
        let words = uploads.words(first_room)?;
        expect("push_part", "words", words.dims(), [sizes[0] / 4])?;
        let scales = match sizes.get(1) {
            None => uploads.compute.no_scales.clone(),
            Some(size) => {
                let scales = uploads.words(first_room + 1)?;
                expect("push_part", "scales", scales.dims(), [size / 4])?;
                scales
            }
        };
        self.parts.push(PackedPart { first: self.rows, rows, words, scales });
        self.rows += rows;
        Ok(())
    }

    /// The f32 matrix that lies in the first `cols` columns of `values: [rows, whole blocks]`, whose
    /// buffer it shares: it follows changes in place.
    ///
    /// # Errors
    /// [`Error::Shape`] if `values` is not as wide as the blocks, [`Error::Device`] on the CPU path.
    pub fn sharing(values: &Tensor<2>, cols: usize, compute: &Compute) -> Result<Self> {
        let [rows, width] = values.dims();
        let expected = cols.next_multiple_of(BLOCK);
        expect("sharing", "values", [rows, width], [rows, expected])?;
        let buffer = on_gpu(values.clone().try_into_primitive::<CubeBackend>())?;
        let words = as_words(buffer, rows * width);
        let scales = compute.no_scales.clone();
        let mut matrix = Self::new(WeightFormat::F32, cols, compute);
        matrix.parts.push(PackedPart { first: 0, rows, words, scales });
        matrix.rows = rows;
        Ok(matrix)
    }

    /// The parts of an f32 matrix as tensors `[rows, whole blocks]` that share its buffers: the
    /// inverse of [`Self::sharing`], with which an optimiser changes the matrix in place.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for other formats, [`Error::Device`] on the CPU path.
    pub fn shared_parts(&self) -> Result<Vec<Tensor<2>>> {
        let is_f32 = self.format == WeightFormat::F32;
        supported("shared_parts", "words of a block", self.format.block_words(), "32", is_f32)?;
        let width = self.blocks() * BLOCK;
        let share = |part: &PackedPart| {
            let words = part.words.clone().try_into_primitive::<CubeBackend>();
            Ok(as_values(on_gpu(words)?, [part.rows, width]))
        };
        self.parts.iter().map(share).collect()
    }

    /// Puts tensors laid out like [`Self::shared_parts`] in place of the parts, which share them then.
    ///
    /// # Errors
    /// [`Error::Shape`] for other sizes, [`Error::Unsupported`] for other formats,
    /// [`Error::Device`] on the CPU path.
    pub fn set_shared_parts(&mut self, parts: Vec<Tensor<2>>) -> Result<()> {
        let (op, width) = ("set_shared_parts", self.blocks() * BLOCK);
        let is_f32 = self.format == WeightFormat::F32;
        supported(op, "words of a block", self.format.block_words(), "32", is_f32)?;
        expect(op, "parts", [parts.len()], [self.parts.len()])?;
        for (part, values) in self.parts.iter_mut().zip(parts) {
            expect(op, "part", values.dims(), [part.rows, width])?;
            let buffer = on_gpu(values.try_into_primitive::<CubeBackend>())?;
            part.words = as_words(buffer, part.rows * width);
        }
        Ok(())
    }

    /// Bytes of the words of one row of `cols` weights.
    pub fn row_bytes(format: WeightFormat, cols: usize) -> usize {
        4 * format.block_words() * cols.div_ceil(BLOCK)
    }

    /// Bytes of the scales of one row of `cols` weights.
    pub fn row_scale_bytes(format: WeightFormat, cols: usize) -> usize {
        let blocks = cols.div_ceil(BLOCK);
        if format.is_scaled() { 2 * blocks.next_multiple_of(SCALES) } else { 0 }
    }

    /// How the weights are stored.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Rows and columns.
    pub fn dims(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// Bytes of words and scales.
    pub fn size_bytes(&self) -> u64 {
        let row =
            Self::row_bytes(self.format, self.cols) + Self::row_scale_bytes(self.format, self.cols);
        self.rows as u64 * row as u64
    }

    /// Blocks of one row.
    pub(crate) fn blocks(&self) -> usize {
        self.cols.div_ceil(BLOCK)
    }

    /// 32-bit words of the scales of one row.
    pub(crate) fn scale_words(&self) -> usize {
        Self::row_scale_bytes(self.format, self.cols) / 4
    }
}

/// The buffer of words as f32 values.
pub(crate) fn as_values<const D: usize>(buffer: CubeTensor, shape: [usize; D]) -> Tensor<D> {
    let CubeTensor { client, device, handle, .. } = buffer;
    let shape = Shape::from(shape);
    let values = CubeTensor::new_contiguous(client, device, shape, handle, DType::F32);
    Tensor::from_primitive::<CubeBackend>(values)
}

/// The buffer of `n` values as words.
fn as_words(buffer: CubeTensor, n: usize) -> Tensor<1, Int> {
    let CubeTensor { client, device, handle, .. } = buffer;
    let words = CubeTensor::new_contiguous(client, device, Shape::from([n]), handle, DType::I32);
    Tensor::from_primitive::<CubeBackend>(words)
}
