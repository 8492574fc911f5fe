//! The launches of a step, noted while it is recorded, and how wgpu alone runs them again.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::wgpu::CubeTensor;
use burn::tensor::wgpu::wgpu;
use cubecl::launched::LaunchedKernels;
use cubecl::wgpu::{AutoCompiler, WgpuResource, WgpuServer};
use globe_shaders::Program;
use wgpu::util::DeviceExt;

use crate::replay::Replay;
use crate::vulkan::{Commands, Vulkan};
use crate::{Error, Result};

thread_local! {
    static NOTED: RefCell<Option<Vec<Result<Launch>>>> = const { RefCell::new(None) };
    static SUBMITS: Cell<u64> = const { Cell::new(0) };
}

/// Submissions of recorded steps by this thread so far: tests and benchmarks count with it. Where CubeCL replays, which
/// says nothing of its submissions, as many as our own launches need.
pub fn submit_count() -> u64 {
    SUBMITS.get()
}

/// Counts so many.
pub(crate) fn submitted(times: usize) {
    SUBMITS.set(SUBMITS.get() + times as u64);
}

/// A launch with all that it binds.
pub(crate) struct Launch {
    pub(crate) program: Program,
    pub(crate) buffers: Vec<WgpuResource>,
    pub(crate) params: Vec<u32>,
    pub(crate) groups: [u32; 3],
}

/// Remembers a launch if someone wants to know.
pub(crate) fn note(program: Program, tensors: &[&CubeTensor], params: &[u32], groups: [u32; 3]) {
    NOTED.with_borrow_mut(|noted| {
        if let Some(noted) = noted {
            let buffers = tensors.iter().map(|tensor| resource(tensor)).collect::<Result<Vec<_>>>();
            let params = params.to_vec();
            noted.push(buffers.map(|buffers| Launch { program, buffers, params, groups }));
        }
    });
}

/// Where a tensor lies. CubeCL may move it later, unless a graph guards its page: [`pinned`] keeps it in place.
pub(crate) fn resource(tensor: &CubeTensor) -> Result<WgpuResource> {
    Ok(pinned(tensor)?.0)
}

/// Where a tensor lies, and what keeps it there as long as it lives.
pub(crate) fn pinned(tensor: &CubeTensor) -> Result<(WgpuResource, Box<dyn Send>)> {
    let found = tensor.client.get_resource::<WgpuServer<AutoCompiler>>(tensor.handle.clone());
    let found = found.map_err(|e| Error::Device { reason: e.to_string() })?;
    Ok((found.resource().clone(), Box::new(found)))
}

/// What wgpu calls device and queue, without what stands above them. Clones share what was compiled.
#[derive(Clone, Debug)]
pub struct RawQueue {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pipelines: Arc<Mutex<HashMap<Program, wgpu::ComputePipeline>>>,
    vulkan: Option<Arc<Vulkan>>,
}

impl RawQueue {
    /// `replay`: how steps run again, if the device can.
    pub(crate) fn new(device: wgpu::Device, queue: wgpu::Queue, replay: Replay) -> Self {
        let vulkan = (replay == Replay::Vulkan).then(|| Vulkan::of(&device)).flatten();
        Self { device, queue, pipelines: Arc::default(), vulkan }
    }

    /// Whether steps become command buffers of Vulkan.
    pub(crate) fn records(&self) -> bool {
        self.vulkan.is_some()
    }

    /// What this thread launches while `step` runs; `None` if that is not all our own, as where Burn
    /// widens rows that are no whole blocks.
    ///
    /// # Errors
    /// [`Error::Device`] if a buffer was lost.
    pub(crate) fn note<T>(&self, step: impl FnOnce() -> T) -> (T, Result<Option<Launches>>) {
        let launched = LaunchedKernels::new();
        NOTED.set(Some(Vec::new()));
        let done = step();
        let noted = NOTED.take().unwrap_or_default().into_iter().collect::<Result<Vec<_>>>();
        let n_kernels = launched.finish().len();
        let own = noted.map(|launches| {
            let programs: HashSet<Program> = launches.iter().map(|l| l.program).collect();
            (programs.len() == n_kernels).then(|| Launches { raw: self.clone(), launches })
        });
        (done, own)
    }

    /// Compiled the first time that a step has it: recording again is quick.
    fn pipeline(&self, program: Program) -> wgpu::ComputePipeline {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        pipelines.entry(program).or_insert_with(|| pipeline_of(&self.device, program)).clone()
    }
}

/// The launches of a step in their order.
pub(crate) struct Launches {
    raw: RawQueue,
    launches: Vec<Launch>,
}

impl Launches {
    /// The step as a command buffer of Vulkan; `None` if the device is not to replay it so.
    ///
    /// # Errors
    /// [`Error::Device`] if the driver refuses it.
    pub(crate) fn record(&self) -> Result<Option<Commands>> {
        let Self { raw, launches } = self;
        raw.vulkan.as_ref().map(|vulkan| Commands::record(vulkan, raw, launches)).transpose()
    }
}

/// The launches of a step as pipelines and bind groups, on the same device and the same buffers, which
/// someone else keeps where they are.
pub struct RawLoop {
    raw: RawQueue,
    dispatches: Vec<Dispatch>,
}

struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
    groups: [u32; 3],
}

impl RawLoop {
    pub(crate) fn new(Launches { raw, launches }: &Launches) -> Self {
        let dispatch = |launch: &Launch| {
            let pipeline = raw.pipeline(launch.program);
            let bindings = bind(&raw.device, &pipeline, launch);
            Dispatch { pipeline, bindings, groups: launch.groups }
        };
        Self { raw: raw.clone(), dispatches: launches.iter().map(dispatch).collect() }
    }

    /// Encodes the launches `times` times and hands them to the device in one submission; does not wait for it.
    pub fn run(&self, times: usize) {
        let mut encoder =
            self.raw.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for _ in 0..times {
            for Dispatch { pipeline, bindings, groups: [x, y, z] } in &self.dispatches {
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, bindings, &[]);
                pass.dispatch_workgroups(*x, *y, *z);
            }
        }
        drop(pass);
        self.raw.queue.submit([encoder.finish()]);
        submitted(1);
    }
}

fn pipeline_of(device: &wgpu::Device, program: Program) -> wgpu::ComputePipeline {
    let source = program.header(cfg!(target_family = "wasm")) + &program.source();
    let source = wgpu::ShaderSource::Wgsl(source.into());
    let descriptor = wgpu::ShaderModuleDescriptor { label: None, source };
    let checks = wgpu::ShaderRuntimeChecks::unchecked();
    // SAFETY: as in `launch`: the kernels check their own indices.
    let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    })
}

/// Bytes of parameters in a uniform buffer: whole units of 16.
pub(crate) fn params_len(params: &[u32]) -> usize {
    size_of_val(params).next_multiple_of(16)
}

/// Parameters as a uniform buffer holds them.
pub(crate) fn padded_params(params: &[u32]) -> Vec<u8> {
    let mut bytes: Vec<u8> = params.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize(params_len(params), 0);
    bytes
}

/// The buffers of a launch in their order, the parameters last.
fn bind(
    device: &wgpu::Device,
    pipeline: &wgpu::ComputePipeline,
    launch: &Launch,
) -> wgpu::BindGroup {
    let params = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: &padded_params(&launch.params),
        usage: wgpu::BufferUsages::UNIFORM,
    });
    let buffers = launch.buffers.iter().map(WgpuResource::as_wgpu_bind_resource);
    let bound = buffers.chain([params.as_entire_binding()]).enumerate();
    let entries: Vec<_> =
        bound.map(|(i, resource)| wgpu::BindGroupEntry { binding: i as u32, resource }).collect();
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    })
}
