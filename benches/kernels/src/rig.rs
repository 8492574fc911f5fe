//! The device, values to work on, and what is done with each case.

use globe_ops::{
    Compute, DeviceChoice, Error, Int, KvFormat, PackedMatrix, Result, Tensor, WeightFormat,
    open_device, tensor_f32, tensor_i32,
};

/// What every bench starts from.
pub struct Rig {
    /// The device.
    pub compute: Compute,
}

impl Rig {
    /// Opens the device that `choice` names.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if there is none.
    pub fn open(choice: DeviceChoice) -> Result<Self> {
        let compute = pollster::block_on(open_device(choice))?;
        if compute.is_gpu() {
            return Ok(Self { compute });
        }
        let reason = "the CPU path is the reference and has no kernels".to_string();
        Err(Error::NoAdapter { wanted: "GPU", reason })
    }

    /// Values from -1 to 1 that differ.
    pub(crate) fn values<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let n = shape.iter().product();
        let value = |i: usize| (i * 7919 % 2003) as f32 / 1001.0 - 1.0;
        tensor_f32((0..n).map(value).collect(), shape, &self.compute.device)
    }

    /// Indices.
    pub(crate) fn indices<const D: usize>(
        &self,
        shape: [usize; D],
        values: impl IntoIterator<Item = usize>,
    ) -> Tensor<D, Int> {
        let values = values.into_iter().map(|x| x as i32).collect();
        tensor_i32(values, shape, &self.compute.device)
    }

    /// Keys and values that differ, as a cache holds them.
    pub(crate) fn cache(
        &self,
        kv: KvFormat,
        [slots, n_kv_heads, head_dim]: [usize; 3],
    ) -> [Tensor<3>; 2] {
        let shape = [slots, n_kv_heads, kv.words(head_dim)];
        [0, 1].map(|_| match kv {
            KvFormat::F32 => self.values(shape),
            KvFormat::F16 => self.halves(shape),
        })
    }

    /// 16-bit floats that differ, two in the bits of each value.
    fn halves<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let n = shape.iter().product();
        let value = |i: usize| {
            let [low, high] = [2 * i, 2 * i + 1].map(|i| u32::from(half(i)));
            f32::from_bits(low | (high << 16))
        };
        tensor_f32((0..n).map(value).collect(), shape, &self.compute.device)
    }

    /// Weights that differ, with scales of 2^-7.
    ///
    /// # Errors
    /// [`globe_ops::Error::TooLarge`] if the adapter cannot bind them.
    pub(crate) fn matrix(
        &self,
        format: WeightFormat,
        [rows, cols]: [usize; 2],
    ) -> Result<PackedMatrix> {
        let bytes = rows * PackedMatrix::row_bytes(format, cols);
        let words: Vec<u8> = match format {
            // Any bits are a number in these; those of floats are kept below 1.
            WeightFormat::Q4 | WeightFormat::Q8 => {
                (0..bytes).map(|i| ((i * 7919) >> 3) as u8).collect()
            }
            _ => (0..bytes / 2).flat_map(|i| half(i).to_le_bytes()).collect(),
        };
        let scales = rows * PackedMatrix::row_scale_bytes(format, cols) / 2;
        let scales = [0x00, 0x20].repeat(scales); // f16
        let mut matrix = PackedMatrix::new(format, cols, &self.compute);
        matrix.push_part(rows, words.into(), scales.into(), &self.compute)?;
        Ok(matrix)
    }

    /// Shows a case to `visit`.
    pub(crate) fn case<T>(
        &self,
        visit: Visit,
        [group, name]: [&str; 2],
        work: Work,
        mut call: impl FnMut() -> Result<T>,
    ) {
        visit(Case { group, name, work, call: &mut || call().map(drop) });
    }

    /// Waits until the device has done everything that was queued.
    ///
    /// # Errors
    /// [`Error::Device`] if the device was lost.
    pub fn wait(&self) -> Result<()> {
        self.compute.device.sync().map_err(|e| Error::Device { reason: e.to_string() })
    }
}

/// One kernel at one size.
pub struct Case<'a> {
    /// Name of the op.
    pub group: &'a str,
    /// Its format and size.
    pub name: &'a str,
    /// What a call does, to compare with what the adapter can do.
    pub work: Work,
    /// Queues a call, whose result is dropped.
    pub call: &'a mut dyn FnMut() -> Result<()>,
}

/// The amount of work in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Read and written.
    Bytes(u64),
    /// Multiplied and added up.
    Products(u64),
}

/// What is done with each case.
pub type Visit<'a> = &'a mut dyn FnMut(Case);

/// A 16-bit float from 2^-6 to 2^-5.
fn half(i: usize) -> u16 {
    0x2400 | (i * 7919 % 1024) as u16
}

/// What the name of a case adds for keys that are not f32.
pub(crate) fn suffix(kv: KvFormat) -> &'static str {
    match kv {
        KvFormat::F32 => "",
        KvFormat::F16 => ", 16-bit keys",
    }
}

/// Bytes of tensors of so many f32 values.
pub(crate) fn bytes(values: usize) -> Work {
    Work::Bytes((size_of::<f32>() * values) as u64)
}

/// Products that are added up.
pub(crate) fn products(n: usize) -> Work {
    Work::Products(n as u64)
}
