//! What the adapter can do at best: the roofs that measurements are compared with.

use burn::backend::wgpu::CubeBackend;
use burn::tensor::Tensor;
use globe_shaders::Kernel;

use crate::advance::on_gpu;
use crate::launch::{element_groups, held, launch, words};
use crate::{Compute, Result, zeros};

/// Rounds of the multiplication kernel.
const ROUNDS: u32 = 4096;
/// Floating-point operations per invocation and round: 16 multiplications and 16 additions.
const FLOPS_PER_ROUND: f64 = 32.0;
/// Invocations per workgroup.
const WG: usize = 256;

/// One repeatable piece of work for the adapter, with a known amount of it.
pub struct Work {
    kernel: Kernel,
    x: Tensor<1>,
    y: Tensor<1>,
    /// Bytes that one run moves, reading and writing.
    pub bytes: f64,
    /// Floating-point operations of one run.
    pub flops: f64,
    /// Every element of the result.
    pub written: f32,
}

impl Work {
    /// Copies `bytes` bytes.
    pub fn copy(bytes: usize, compute: &Compute) -> Self {
        let n = bytes / 16 * 4;
        let device = &compute.device;
        let (x, y) = (zeros([n], device), zeros([n], device));
        Self { kernel: Kernel::BenchCopy, x, y, bytes: 8.0 * n as f64, flops: 0.0, written: 0.0 }
    }

    /// Multiplies and adds in registers, in `groups` workgroups.
    pub fn multiply(groups: usize, compute: &Compute) -> Self {
        let n = groups * WG;
        let device = &compute.device;
        let (x, y) = (zeros([n], device), zeros([n], device));
        let flops = n as f64 * f64::from(ROUNDS) * FLOPS_PER_ROUND;
        let written = 30.0; // bench_fma.wgsl, for inputs of 0
        Self { kernel: Kernel::BenchFma, x, y, bytes: 8.0 * n as f64, flops, written }
    }

    /// Queues one run.
    ///
    /// # Errors
    /// [`crate::Error::Device`] on the CPU path.
    pub fn launch(&self) -> Result<()> {
        let primitive = |t: &Tensor<1>| on_gpu(t.clone().try_into_primitive::<CubeBackend>());
        let (x, y) = (primitive(&self.x)?, primitive(&self.y)?);
        let [n] = self.x.dims();
        if self.kernel == Kernel::BenchFma {
            launch(
                self.kernel,
                &[&x, &y],
                &words![ROUNDS, 1.0f32, 0.0f32],
                [(n / WG) as u32, 1, 1],
            );
        } else {
            let (groups, stride) = element_groups(n / 4);
            launch(self.kernel, &[&x, &y], &words![n / 4, stride], groups);
        }
        Ok(())
    }

    /// What the last run wrote.
    pub fn result(&self) -> Tensor<1> {
        self.y.clone()
    }
}

/// Bytes on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Held by tensors.
    pub in_use: u64,
    /// Taken from the driver.
    pub reserved: u64,
}

impl Compute {
    /// Memory of this thread's stream, which holds everything that one thread allocated; zeros
    /// on the CPU path.
    pub fn memory(&self) -> DeviceMemory {
        let Ok(tensor) = self.nothing[0].clone().try_into_primitive::<CubeBackend>() else {
            return DeviceMemory::default();
        };
        let report = tensor.client.memory_report(cubecl::MemoryScope::Device);
        DeviceMemory { in_use: held(&report), reserved: report.usage().bytes_reserved }
    }

    /// Waits for the device and gives pages that hold nothing back to the driver.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the device was lost.
    pub fn free_unused(&self) -> Result<()> {
        let sync =
            || self.device.sync().map_err(|e| crate::Error::Device { reason: e.to_string() });
        sync()?; // what is still queued holds its buffers
        self.device.memory_cleanup();
        sync()
    }
}
