//! The device, values to work on, and the clock.

use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, Throughput};
use globe_ops::{
    Compute, DeviceChoice, Int, PackedMatrix, Result, Tensor, WeightFormat, open_device,
    tensor_f32, tensor_i32,
};

/// Names the device that is measured: auto, gpu or software.
const DEVICE: &str = "GLOBE_BENCH_DEVICE";
/// Calls that may wait at once: what they write is held until the device has come to them.
const QUEUED: u64 = 64;

/// What every bench starts from.
pub struct Rig {
    /// The device.
    pub compute: Compute,
}

impl Rig {
    /// Opens the device; without an adapter says so.
    pub fn open() -> Option<Self> {
        let name = std::env::var(DEVICE).unwrap_or_else(|_| "auto".to_string());
        let choice = match name.parse::<DeviceChoice>() {
            Ok(choice) => choice,
            Err(error) => {
                eprintln!("{DEVICE}: {error}");
                std::process::exit(2);
            }
        };
        match pollster::block_on(open_device(choice)) {
            Ok(compute) if compute.is_gpu() => {
                eprintln!("on {} ({:?} kernels)", compute.name, compute.variant());
                Some(Self { compute })
            }
            Ok(_) => {
                eprintln!("skipped: no adapter, and the CPU path is the reference only");
                None
            }
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    /// Values from -1 to 1 that differ.
    pub fn values<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let n = shape.iter().product();
        let value = |i: usize| (i * 7919 % 2003) as f32 / 1001.0 - 1.0;
        tensor_f32((0..n).map(value).collect(), shape, &self.compute.device)
    }

    /// Indices.
    pub fn indices<const D: usize>(
        &self,
        shape: [usize; D],
        values: impl IntoIterator<Item = usize>,
    ) -> Tensor<D, Int> {
        let values = values.into_iter().map(|x| x as i32).collect();
        tensor_i32(values, shape, &self.compute.device)
    }

    /// Weights that differ, with scales of 2^-7.
    ///
    /// # Errors
    /// [`globe_ops::Error::TooLarge`] if the adapter cannot bind them.
    pub fn matrix(&self, format: WeightFormat, [rows, cols]: [usize; 2]) -> Result<PackedMatrix> {
        let bytes = rows * PackedMatrix::row_bytes(format, cols);
        let words = match format {
            // Any bits are a number in these; those of floats are kept below 1.
            WeightFormat::Q4 | WeightFormat::Q8 => {
                (0..bytes).map(|i| (i * 7919 >> 3) as u8).collect()
            }
            _ => (0..bytes / 2)
                .flat_map(|i| (0x2400u16 | (i * 7919 % 1024) as u16).to_le_bytes())
                .collect(),
        };
        let scales = rows * PackedMatrix::row_scale_bytes(format, cols) / 2;
        let scales = [0x00, 0x20].repeat(scales); // f16
        let mut matrix = PackedMatrix::new(format, cols, &self.compute);
        matrix.push_part(rows, words, scales, &self.compute)?;
        Ok(matrix)
    }

    /// Measures `call`, which one iteration makes once.
    ///
    /// # Panics
    /// If `call` fails: the sizes above are this program's own.
    pub fn bench<T>(
        &self,
        criterion: &mut Criterion,
        [group, name]: [&str; 2],
        throughput: Throughput,
        mut call: impl FnMut() -> Result<T>,
    ) {
        let mut group = criterion.benchmark_group(group);
        group.sample_size(10).throughput(throughput);
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
        group.bench_function(name, |bencher| self.time(bencher, &mut call));
        group.finish();
    }

    fn time<T>(&self, bencher: &mut Bencher, call: &mut impl FnMut() -> Result<T>) {
        bencher.iter_custom(|iterations| {
            self.wait();
            let start = Instant::now();
            for i in 1..=iterations {
                call().expect("the sizes fit, and the device is there");
                if i % QUEUED == 0 {
                    self.wait();
                }
            }
            self.wait();
            start.elapsed()
        });
    }

    /// Until the device has done everything that was queued.
    fn wait(&self) {
        self.compute.device.sync().expect("the device is there");
    }
}

/// Bytes of tensors of so many f32 values.
pub fn bytes(values: usize) -> Throughput {
    Throughput::Bytes((size_of::<f32>() * values) as u64)
}

/// Products that are added up.
pub fn products(n: usize) -> Throughput {
    Throughput::Elements(n as u64)
}
