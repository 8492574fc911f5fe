//! The launches of a step through wgpu alone: how a recorded step is replayed on every adapter.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::wgpu::CubeTensor;
use burn::tensor::wgpu::wgpu;
use cubecl::launched::LaunchedKernels;
use cubecl::wgpu::{AutoCompiler, WgpuResource, WgpuServer};
use globe_shaders::Program;
use wgpu::util::DeviceExt;

use crate::{Error, Result};

thread_local! {
    static NOTED: RefCell<Option<Vec<Result<Noted>>>> = const { RefCell::new(None) };
}

/// A launch with all that it binds.
struct Noted {
    program: Program,
    buffers: Vec<WgpuResource>,
    params: Vec<u32>,
    groups: [u32; 3],
}

/// Remembers a launch if someone wants to know.
pub(crate) fn note(program: Program, tensors: &[&CubeTensor], params: &[u32], groups: [u32; 3]) {
    NOTED.with_borrow_mut(|noted| {
        if let Some(noted) = noted {
            let buffers = tensors.iter().map(|tensor| resource(tensor)).collect::<Result<Vec<_>>>();
            let params = params.to_vec();
            noted.push(buffers.map(|buffers| Noted { program, buffers, params, groups }));
        }
    });
}

/// Where a tensor lies.
pub(crate) fn resource(tensor: &CubeTensor) -> Result<WgpuResource> {
    let found = tensor.client.get_resource::<WgpuServer<AutoCompiler>>(tensor.handle.clone());
    Ok(found.map_err(|e| Error::Device { reason: e.to_string() })?.resource().clone())
}

/// What wgpu calls device and queue, without what stands above them. Clones share what was compiled.
#[derive(Clone, Debug)]
pub struct RawQueue {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pipelines: Arc<Mutex<HashMap<Program, wgpu::ComputePipeline>>>,
}

impl RawQueue {
    pub(crate) fn new(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self { device, queue, pipelines: Arc::default() }
    }

    /// Compiled the first time that a step has it: recording again is quick.
    fn pipeline(&self, program: Program) -> wgpu::ComputePipeline {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        pipelines.entry(program).or_insert_with(|| pipeline_of(&self.device, program)).clone()
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
    /// Of what this thread launches while `step` runs; `None` if that is not all our own, as where Burn
    /// widens rows that are no whole blocks.
    ///
    /// # Errors
    /// [`Error::Device`] if a buffer was lost.
    pub(crate) fn of<T>(raw: &RawQueue, step: impl FnOnce() -> T) -> (T, Result<Option<Self>>) {
        let launched = LaunchedKernels::new();
        NOTED.set(Some(Vec::new()));
        let done = step();
        let noted = NOTED.take().unwrap_or_default().into_iter().collect::<Result<Vec<_>>>();
        let n_kernels = launched.finish().len();
        let own = noted.map(|noted| {
            let programs: HashSet<Program> = noted.iter().map(|launch| launch.program).collect();
            (programs.len() == n_kernels).then(|| Self::new(raw.clone(), &noted))
        });
        (done, own)
    }

    fn new(raw: RawQueue, noted: &[Noted]) -> Self {
        let dispatch = |launch: &Noted| {
            let pipeline = raw.pipeline(launch.program);
            let bindings = bind(&raw.device, &pipeline, launch);
            Dispatch { pipeline, bindings, groups: launch.groups }
        };
        let dispatches = noted.iter().map(dispatch).collect();
        Self { raw, dispatches }
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

/// The buffers of a launch in their order, the parameters last.
fn bind(
    device: &wgpu::Device,
    pipeline: &wgpu::ComputePipeline,
    launch: &Noted,
) -> wgpu::BindGroup {
    let mut params: Vec<u8> = launch.params.iter().flat_map(|word| word.to_le_bytes()).collect();
    params.resize(params.len().next_multiple_of(16), 0);
    let params = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: &params,
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
