//! The launches of a step through wgpu alone: what a replay is measured against.

use std::cell::RefCell;
use std::collections::HashMap;

use burn::backend::wgpu::CubeTensor;
use burn::tensor::wgpu::wgpu;
use cubecl::wgpu::{AutoCompiler, WgpuResource, WgpuServer};
use globe_shaders::Program;
use wgpu::util::DeviceExt;

use crate::{Compute, Error, Result};

thread_local! {
    static NOTED: RefCell<Option<Vec<Noted>>> = const { RefCell::new(None) };
}

/// A launch with all that it binds.
struct Noted {
    program: Program,
    tensors: Vec<CubeTensor>,
    params: Vec<u32>,
    groups: [u32; 3],
}

/// Remembers a launch if someone wants to know.
pub(crate) fn note(program: Program, tensors: &[&CubeTensor], params: &[u32], groups: [u32; 3]) {
    NOTED.with_borrow_mut(|noted| {
        if let Some(noted) = noted {
            let tensors = tensors.iter().map(|tensor| (*tensor).clone()).collect();
            noted.push(Noted { program, tensors, params: params.to_vec(), groups });
        }
    });
}

/// The launches of a step as pipelines and bind groups, on the same device and the same buffers.
/// It does what [`crate::StepGraph`] does with nothing between it and wgpu.
pub struct RawLoop {
    device: wgpu::Device,
    queue: wgpu::Queue,
    dispatches: Vec<Dispatch>,
    /// Keep what is bound.
    _noted: Vec<Noted>,
}

struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
    groups: [u32; 3],
}

impl RawLoop {
    /// Runs `step` once for real and takes its launches over.
    ///
    /// # Errors
    /// What `step` returns, or [`Error::Device`] on the CPU path.
    pub fn of<E: From<Error>>(
        compute: &Compute,
        step: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        let (device, queue) = compute.raw()?;
        NOTED.set(Some(Vec::new()));
        let done = step();
        let noted = NOTED.take().unwrap_or_default();
        done?;
        let mut pipelines = HashMap::new();
        let dispatch = |launch: &Noted| {
            let pipeline = pipelines.entry(launch.program);
            let pipeline = pipeline.or_insert_with(|| pipeline_of(&device, launch.program)).clone();
            let bindings = bind(&device, &pipeline, launch)?;
            Ok(Dispatch { pipeline, bindings, groups: launch.groups })
        };
        let dispatches = noted.iter().map(dispatch).collect::<Result<Vec<_>>>()?;
        Ok(Self { device, queue, dispatches, _noted: noted })
    }

    /// Encodes the launches once more and hands them to the device; does not wait for it.
    pub fn run(&self) {
        let mut encoder =
            self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for Dispatch { pipeline, bindings, groups: [x, y, z] } in &self.dispatches {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, bindings, &[]);
            pass.dispatch_workgroups(*x, *y, *z);
        }
        drop(pass);
        self.queue.submit([encoder.finish()]);
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
) -> Result<wgpu::BindGroup> {
    let resource = |tensor: &CubeTensor| -> Result<WgpuResource> {
        let found = tensor.client.get_resource::<WgpuServer<AutoCompiler>>(tensor.handle.clone());
        let found = found.map_err(|e| Error::Device { reason: e.to_string() })?;
        Ok(found.resource().clone())
    };
    let resources = launch.tensors.iter().map(resource).collect::<Result<Vec<_>>>()?;
    let mut params: Vec<u8> = launch.params.iter().flat_map(|word| word.to_le_bytes()).collect();
    params.resize(params.len().next_multiple_of(16), 0);
    let params = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: &params,
        usage: wgpu::BufferUsages::UNIFORM,
    });
    let buffers = resources.iter().map(WgpuResource::as_wgpu_bind_resource);
    let bound = buffers.chain([params.as_entire_binding()]).enumerate();
    let entries: Vec<_> =
        bound.map(|(i, resource)| wgpu::BindGroupEntry { binding: i as u32, resource }).collect();
    Ok(device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    }))
}
