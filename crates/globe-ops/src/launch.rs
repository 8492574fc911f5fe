//! From a kernel, its tensors and its parameters to one dispatch.

use std::cell::Cell;

use burn::backend::wgpu::{
    CubeDim, CubeTensor, KernelSource, SourceKernel, SourceTemplate, into_contiguous,
};
use burn::tensor::{DType, Shape};
use cubecl::prelude::{CubeCount, ExecutionMode, KernelId};
use cubecl::server::{KernelArguments, MetadataBindingInfo};
use cubecl::{MemoryReport, MemoryScope};
use globe_shaders::Program;

use crate::raw_loop::note;

/// Workgroups along one axis of a dispatch, the limit of every WebGPU adapter.
const MAX_GROUPS: u32 = 65_535;
/// Invocations per workgroup of the element-wise kernels.
const WG: u32 = 256;

thread_local! {
    // Of one thread: a stream belongs to a thread, and others may launch meanwhile.
    static DISPATCHES: Cell<u64> = const { Cell::new(0) };
    static PEAK: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The most bytes that tensors held while a kernel of this thread was launched, as long as it lives:
/// for tests and benchmarks, since every launch asks the device.
#[derive(Debug)]
pub struct MemoryWatch(());

impl MemoryWatch {
    /// Watches from now on; an earlier watch of this thread starts anew.
    pub fn begin() -> Self {
        PEAK.set(Some(0));
        Self(())
    }

    /// The most so far, bytes.
    pub fn peak(&self) -> u64 {
        PEAK.get().unwrap_or_default()
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        PEAK.set(None);
    }
}

/// Kernels launched by this thread so far: tests and benchmarks count with it.
pub fn dispatch_count() -> u64 {
    DISPATCHES.get()
}

struct Source(Program);

impl KernelSource for Source {
    fn source(&self) -> SourceTemplate {
        SourceTemplate::new(self.0.header(cfg!(target_family = "wasm")) + &self.0.source())
    }

    fn id(&self) -> KernelId {
        // Unchecked: naga would bound every loop, and the kernels check their own indices.
        KernelId::new::<Self>().info(self.0).mode(ExecutionMode::Unchecked)
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

/// A parameter word; the struct in the shader lists the same words in the same order.
pub(crate) trait Word {
    fn word(self) -> u32;
}

impl Word for usize {
    fn word(self) -> u32 {
        // Buffers are indexed by u32 in every kernel; `TooLarge` refuses tensors beyond that.
        self as u32
    }
}

impl Word for u32 {
    fn word(self) -> u32 {
        self
    }
}

impl Word for f32 {
    fn word(self) -> u32 {
        self.to_bits()
    }
}

/// Bytes that tensors hold. CubeCL counts its cache of launch parameters besides, which takes in and forgets single
/// entries as it likes.
pub(crate) fn held(report: &MemoryReport) -> u64 {
    report.streams.iter().map(|stream| stream.pools.usage().bytes_in_use).sum()
}

/// Lists parameters of mixed types as words.
macro_rules! words {
    ($($value:expr),+ $(,)?) => { [$($crate::launch::Word::word($value)),+] };
}
pub(crate) use words;

/// Records one dispatch of `program`; buffers bind in order, the parameters last.
pub(crate) fn launch(
    program: impl Into<Program>,
    tensors: &[&CubeTensor],
    params: &[u32],
    groups: [u32; 3],
) {
    DISPATCHES.set(DISPATCHES.get() + 1);
    let program = program.into();
    note(program, tensors, params, groups);
    let info = params
        .chunks(2)
        .map(|pair| u64::from(pair[0]) | u64::from(*pair.get(1).unwrap_or(&0)) << 32)
        .collect();
    let buffers = tensors.iter().map(|t| t.handle.clone().binding()).collect();
    let [x, y, z] = groups;
    if let Some(peak) = PEAK.get() {
        let report = tensors[0].client.memory_report(MemoryScope::Device);
        PEAK.set(Some(peak.max(held(&report))));
    }
    tensors[0].client.launch(
        Box::new(SourceKernel::new(Source(program), CubeDim::new_1d(WG))),
        CubeCount::Static(x, y, z),
        KernelArguments::new().with_buffers(buffers).with_info(MetadataBindingInfo::custom(info)),
    );
}

/// An uninitialised tensor on the device of `like`.
pub(crate) fn output(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    let shape = shape.into();
    let buffer = like.client.empty(shape.num_elements() * dtype.size());
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, buffer, dtype)
}

/// Inputs as the kernels read them: contiguous.
pub(crate) fn contiguous<const N: usize>(tensors: [CubeTensor; N]) -> [CubeTensor; N] {
    tensors.map(into_contiguous)
}

/// Groups for `len` elements, one invocation each, and the stride of `id.y` in elements.
pub(crate) fn element_groups(len: usize) -> ([u32; 3], u32) {
    let [x, y, z] = folded_groups((len as u32).div_ceil(WG));
    ([x, y, z], x * WG)
}

/// `count` workgroups folded over x and y; the kernel checks `y * x_count + x` against its own count.
pub(crate) fn folded_groups(count: u32) -> [u32; 3] {
    let x = count.clamp(1, MAX_GROUPS);
    [x, count.div_ceil(x), 1]
}
