//! A step as one command buffer of Vulkan, recorded once.
//!
//! wgpu has no command buffer that can be submitted twice: it encodes, checks and tracks every launch of every step
//! anew. Here a step is a secondary command buffer, and wgpu's own submission only calls it.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;
use burn::tensor::wgpu::wgpu;
use globe_shaders::Program;
use naga::back::spv;
use wgpu::hal::api::Vulkan as Api;
use wgpu::util::DeviceExt;

use crate::raw_loop::{Launch, RawQueue, padded_params, params_len, submitted};
use crate::{Error, Result};

/// Whether wgpu drives Vulkan on this target.
pub(crate) const IS_DRIVEN: bool = true;

/// What a program may take of an adapter's own memory, bytes: of its largest heap what the driver says that others leave.
/// `None` if it does not say, or wgpu drives the adapter by another API.
pub(crate) fn memory_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: nothing that wgpu owns is destroyed through it.
    let hal = unsafe { adapter.as_hal::<Api>() }?;
    let (instance, physical) = (hal.shared_instance().raw_instance(), hal.raw_physical_device());
    // SAFETY: `physical` is a device of `instance`.
    let (extensions, device) = unsafe {
        let extensions = instance.enumerate_device_extension_properties(physical).ok()?;
        (extensions, instance.get_physical_device_properties(physical).api_version)
    };
    let says = |extension: &vk::ExtensionProperties| {
        extension.extension_name_as_c_str() == Ok(ash::ext::memory_budget::NAME)
    };
    let version = device.min(hal.shared_instance().instance_api_version());
    if version < vk::API_VERSION_1_1 || !extensions.iter().any(says) {
        return None;
    }
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
    // SAFETY: as above; both are at least of Vulkan 1.1, which has this function.
    unsafe { instance.get_physical_device_memory_properties2(physical, &mut properties) };
    let memory = properties.memory_properties;
    let own = (0..memory.memory_heap_count as usize)
        .filter(|i| memory.memory_heaps[*i].flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
    let largest = own.max_by_key(|i| memory.memory_heaps[*i].size)?;
    // Some drivers say more than there is.
    let all = budget.heap_budget[largest].min(memory.memory_heaps[largest].size);
    Some(all.saturating_sub(budget.heap_usage[largest]))
}

/// A device of Vulkan under its wgpu device, with what was compiled for it.
pub(crate) struct Vulkan {
    device: wgpu::Device,
    ash: ash::Device,
    queue_family: u32,
    spirv_version: (u8, u8),
    spirv_capabilities: Vec<spv::Capability>,
    kernels: Mutex<HashMap<Program, Kernel>>,
}

/// Handles of a compiled program; [`Vulkan`] destroys them.
#[derive(Clone, Copy, Default)]
struct Kernel {
    set_layout: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
}

impl Vulkan {
    /// `None` if wgpu drives this device by another API.
    pub(crate) fn of(device: &wgpu::Device) -> Option<Arc<Self>> {
        // SAFETY: nothing that wgpu owns is destroyed through it.
        let hal = unsafe { device.as_hal::<Api>() }?;
        let (instance, physical) =
            (hal.shared_instance().raw_instance(), hal.raw_physical_device());
        let mut dot = vk::PhysicalDeviceShaderIntegerDotProductFeatures::default();
        let mut features = vk::PhysicalDeviceFeatures2::default();
        // SAFETY: `physical` is a device of `instance`; `api_version` says that the structures are known.
        let version = unsafe { instance.get_physical_device_properties(physical) }.api_version;
        if version >= vk::API_VERSION_1_3 {
            features = features.push_next(&mut dot);
            // SAFETY: as above.
            unsafe { instance.get_physical_device_features2(physical, &mut features) };
        }
        let has_dot = dot.shader_integer_dot_product == vk::TRUE;
        Some(Arc::new(Self {
            ash: hal.raw_device().clone(),
            queue_family: hal.queue_family_index(),
            spirv_version: spirv_version(version),
            spirv_capabilities: spirv_capabilities(has_dot),
            kernels: Mutex::default(),
            device: device.clone(),
        }))
    }

    /// Compiled the first time that a step has it.
    fn kernel(&self, program: Program, n_buffers: usize) -> Result<Kernel> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(&program) {
            return Ok(*kernel);
        }
        let mut kernel = Kernel::default();
        if let Err(e) = self.compile(&mut kernel, program, n_buffers) {
            // SAFETY: nothing uses what was made so far; null handles are passed over.
            unsafe { kernel.destroy(&self.ash) };
            return Err(e);
        }
        kernels.insert(program, kernel);
        Ok(kernel)
    }

    fn compile(&self, kernel: &mut Kernel, program: Program, n_buffers: usize) -> Result<()> {
        let spirv = self.spirv(program)?;
        let binding = |i| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(i as u32)
                .descriptor_type(descriptor_type(i, n_buffers))
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
        };
        let bindings: Vec<_> = (0..=n_buffers).map(binding).collect();
        let set_layout = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        let module = vk::ShaderModuleCreateInfo::default().code(&spirv);
        // As wgpu asks for it: the driver may choose the size of subgroups where it can vary.
        let flags = match self.device.features().contains(wgpu::Features::SUBGROUP) {
            true => vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE,
            false => vk::PipelineShaderStageCreateFlags::empty(),
        };
        // SAFETY: all handles are this device's, and the SPIR-V is naga's.
        unsafe {
            kernel.set_layout =
                self.ash.create_descriptor_set_layout(&set_layout, None).map_err(failed)?;
            let set_layouts = [kernel.set_layout];
            let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&set_layouts);
            kernel.layout = self.ash.create_pipeline_layout(&layout, None).map_err(failed)?;
            let module = self.ash.create_shader_module(&module, None).map_err(failed)?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .flags(flags)
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(c"main");
            let info = vk::ComputePipelineCreateInfo::default().layout(kernel.layout).stage(stage);
            let made = self.ash.create_compute_pipelines(vk::PipelineCache::null(), &[info], None);
            self.ash.destroy_shader_module(module, None);
            kernel.pipeline = made.map_err(|(_, e)| failed(e))?[0];
        }
        Ok(())
    }

    /// A program as wgpu would hand it to the driver: the kernels check their own indices.
    fn spirv(&self, program: Program) -> Result<Vec<u32>> {
        let refused = |e: String| Error::Device { reason: format!("{program:?}: {e}") };
        let source = program.header(false) + &program.source();
        let all = naga::valid::Capabilities::all();
        let mut parser =
            naga::front::wgsl::Frontend::new_with_options(naga::front::wgsl::Options {
                parse_doc_comments: false,
                capabilities: all,
            });
        let module = parser.parse(&source).map_err(|e| refused(e.emit_to_string(&source)))?;
        let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), all);
        let info = validator.validate(&module).map_err(|e| refused(e.emit_to_string(&source)))?;
        let unchecked = naga::proc::BoundsCheckPolicy::Unchecked;
        let options = spv::Options {
            lang_version: self.spirv_version,
            flags: spv::WriterFlags::empty(),
            // Sets and bindings as the program numbers them.
            fake_missing_bindings: true,
            capabilities: Some(self.spirv_capabilities.iter().copied().collect()),
            bounds_check_policies: naga::proc::BoundsCheckPolicies {
                index: unchecked,
                buffer: unchecked,
                image_load: unchecked,
                binding_array: unchecked,
            },
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: false,
            emit_int_div_checks: false,
            ..spv::Options::default()
        };
        let main = spv::PipelineOptions {
            shader_stage: naga::ShaderStage::Compute,
            entry_point: "main".into(),
        };
        spv::write_vec(&module, &info, &options, Some(&main)).map_err(|e| refused(e.to_string()))
    }
}

impl fmt::Debug for Vulkan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vulkan").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Drop for Vulkan {
    fn drop(&mut self) {
        let kernels = self.kernels.get_mut().unwrap_or_else(PoisonError::into_inner);
        for kernel in kernels.values() {
            // SAFETY: all command buffers that use it are gone: they hold this device.
            unsafe { kernel.destroy(&self.ash) };
        }
    }
}

impl Kernel {
    /// # Safety
    /// No command buffer uses it any more.
    unsafe fn destroy(&self, ash: &ash::Device) {
        // SAFETY: the caller's; null handles are passed over.
        unsafe {
            ash.destroy_pipeline(self.pipeline, None);
            ash.destroy_pipeline_layout(self.layout, None);
            ash.destroy_descriptor_set_layout(self.set_layout, None);
        }
    }
}

/// The launches of a step on buffers that stay where they are, recorded.
pub(crate) struct Commands {
    vulkan: Arc<Vulkan>,
    raw: RawQueue,
    pool: vk::CommandPool,
    descriptors: vk::DescriptorPool,
    step: vk::CommandBuffer,
    /// What the step reads and writes.
    buffers: HashSet<wgpu::Buffer>,
    params: wgpu::Buffer,
    last: Cell<Option<wgpu::SubmissionIndex>>,
}

impl Commands {
    /// # Errors
    /// [`Error::Device`] if the driver refuses a kernel or has no memory left.
    pub(crate) fn record(
        vulkan: &Arc<Vulkan>,
        raw: &RawQueue,
        launches: &[Launch],
    ) -> Result<Self> {
        let kernels = launches.iter().map(|l| vulkan.kernel(l.program, l.buffers.len()));
        let kernels = kernels.collect::<Result<Vec<_>>>()?;
        let (params, stride) = params(&vulkan.device, launches);
        let buffers = launches.iter().flat_map(|l| l.buffers.iter().map(|b| b.buffer.clone()));
        let mut commands = Self {
            vulkan: vulkan.clone(),
            raw: raw.clone(),
            pool: vk::CommandPool::null(),
            descriptors: vk::DescriptorPool::null(),
            step: vk::CommandBuffer::null(),
            buffers: buffers.collect(),
            params,
            last: Cell::default(),
        };
        let sets = commands.bind(launches, &kernels, stride)?;
        commands.encode(launches, &kernels, &sets)?;
        Ok(commands)
    }

    /// A descriptor set for each launch: its buffers in their order, the parameters last.
    fn bind(
        &mut self,
        launches: &[Launch],
        kernels: &[Kernel],
        stride: u64,
    ) -> Result<Vec<vk::DescriptorSet>> {
        let ash = &self.vulkan.ash;
        let (n_sets, n_buffers) =
            (launches.len() as u32, launches.iter().map(|l| l.buffers.len() as u32).sum());
        let size = |ty, n| vk::DescriptorPoolSize::default().ty(ty).descriptor_count(n);
        let sizes = [
            size(vk::DescriptorType::STORAGE_BUFFER, n_buffers),
            size(vk::DescriptorType::UNIFORM_BUFFER, n_sets),
        ];
        let pool = vk::DescriptorPoolCreateInfo::default().max_sets(n_sets).pool_sizes(&sizes);
        let layouts: Vec<_> = kernels.iter().map(|kernel| kernel.set_layout).collect();
        // SAFETY: the pool has room for exactly these sets, and is destroyed with them.
        let sets = unsafe {
            self.descriptors = ash.create_descriptor_pool(&pool, None).map_err(failed)?;
            let sets = vk::DescriptorSetAllocateInfo::default()
                .descriptor_pool(self.descriptors)
                .set_layouts(&layouts);
            ash.allocate_descriptor_sets(&sets).map_err(failed)?
        };
        for (i, (launch, set)) in launches.iter().zip(&sets).enumerate() {
            let n = launch.buffers.len();
            let mut bound = Vec::with_capacity(n + 1);
            for buffer in &launch.buffers {
                bound.push(range(&buffer.buffer, buffer.offset, buffer.size)?);
            }
            let size = params_len(&launch.params) as u64;
            bound.push(range(&self.params, i as u64 * stride, size)?);
            let write = |(binding, info)| {
                vk::WriteDescriptorSet::default()
                    .dst_set(*set)
                    .dst_binding(binding as u32)
                    .descriptor_type(descriptor_type(binding, n))
                    .buffer_info(std::slice::from_ref(info))
            };
            let writes: Vec<_> = bound.iter().enumerate().map(write).collect();
            // SAFETY: the buffers live as long as the sets: `buffers` and `params` hold them.
            unsafe { ash.update_descriptor_sets(&writes, &[]) };
        }
        Ok(sets)
    }

    /// Each launch waits for the one before, of this step or of the last.
    fn encode(
        &mut self,
        launches: &[Launch],
        kernels: &[Kernel],
        sets: &[vk::DescriptorSet],
    ) -> Result<()> {
        let ash = &self.vulkan.ash;
        let (point, stage) =
            (vk::PipelineBindPoint::COMPUTE, vk::PipelineStageFlags::COMPUTE_SHADER);
        let written = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::SHADER_WRITE)
            .dst_access_mask(vk::AccessFlags::SHADER_READ | vk::AccessFlags::SHADER_WRITE);
        let pool =
            vk::CommandPoolCreateInfo::default().queue_family_index(self.vulkan.queue_family);
        let inherited = vk::CommandBufferInheritanceInfo::default();
        // Several steps share a submission, so one may wait while another runs.
        let begin = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::SIMULTANEOUS_USE)
            .inheritance_info(&inherited);
        // SAFETY: only this thread has the pool, and every handle outlives the commands.
        unsafe {
            self.pool = ash.create_command_pool(&pool, None).map_err(failed)?;
            let buffers = vk::CommandBufferAllocateInfo::default()
                .command_pool(self.pool)
                .level(vk::CommandBufferLevel::SECONDARY)
                .command_buffer_count(1);
            let step = ash.allocate_command_buffers(&buffers).map_err(failed)?[0];
            ash.begin_command_buffer(step, &begin).map_err(failed)?;
            for (i, (launch, compiled)) in launches.iter().zip(kernels).enumerate() {
                let ([x, y, z], none) = (launch.groups, vk::DependencyFlags::empty());
                ash.cmd_pipeline_barrier(step, stage, stage, none, &[written], &[], &[]);
                ash.cmd_bind_pipeline(step, point, compiled.pipeline);
                ash.cmd_bind_descriptor_sets(step, point, compiled.layout, 0, &sets[i..=i], &[]);
                ash.cmd_dispatch(step, x, y, z);
            }
            ash.end_command_buffer(step).map_err(failed)?;
            self.step = step;
        }
        Ok(())
    }

    /// Runs the step `times` times in one submission; does not wait for it.
    pub(crate) fn run(&self, times: usize) {
        let device = &self.vulkan.device;
        let encoder = || device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let (mut before, mut steps) = (encoder(), encoder());
        // wgpu sees nothing of the steps: this says what they touch, so that it puts barriers around them, and frees
        // no buffer before they are done.
        let storage =
            self.buffers.iter().map(|buffer| (buffer, wgpu::BufferUses::STORAGE_READ_WRITE));
        let uses = storage.chain([(&self.params, wgpu::BufferUses::UNIFORM)]);
        let uses = uses.map(|(buffer, state)| wgpu::BufferTransition { buffer, state });
        before.transition_resources(uses, std::iter::empty());
        // SAFETY: the step is recorded to the end and lives until the submission is done: `drop` waits for it.
        unsafe {
            steps.as_hal_mut::<Api, _, _>(|steps| {
                let Some(steps) = steps else { return }; // the device was lost
                for _ in 0..times {
                    self.vulkan.ash.cmd_execute_commands(steps.raw_handle(), &[self.step]);
                }
            });
        }
        self.last.set(Some(self.raw.queue.submit([before.finish(), steps.finish()])));
        submitted(1);
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        if let last @ Some(_) = self.last.take() {
            // A device that was lost runs nothing any more.
            let _ = self.raw.wait(last);
        }
        // SAFETY: the device has done all that was submitted; null handles are passed over.
        unsafe {
            self.vulkan.ash.destroy_command_pool(self.pool, None);
            self.vulkan.ash.destroy_descriptor_pool(self.descriptors, None);
        }
    }
}

/// The parameters of all launches in one buffer, so many bytes apart.
fn params(device: &wgpu::Device, launches: &[Launch]) -> (wgpu::Buffer, u64) {
    let align = device.limits().min_uniform_buffer_offset_alignment as usize;
    let longest = launches.iter().map(|launch| params_len(&launch.params)).max();
    let stride = longest.unwrap_or(0).next_multiple_of(align);
    let apart = |launch: &Launch| {
        let mut bytes = padded_params(&launch.params);
        bytes.resize(stride, 0);
        bytes
    };
    let contents: Vec<u8> = launches.iter().flat_map(apart).collect();
    let buffer = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: &contents,
        usage: wgpu::BufferUsages::UNIFORM,
    });
    (buffer, stride as u64)
}

/// Part of a buffer as wgpu binds it: whole words, or all from `offset` on where there is nothing to bind.
fn range(buffer: &wgpu::Buffer, offset: u64, size: u64) -> Result<vk::DescriptorBufferInfo> {
    // SAFETY: nothing that wgpu owns is destroyed through it.
    let hal = unsafe { buffer.as_hal::<Api>() }
        .ok_or_else(|| Error::Device { reason: "a buffer was lost".into() })?;
    // SAFETY: as above.
    let raw = unsafe { hal.raw_handle() };
    let size = if size == 0 { vk::WHOLE_SIZE } else { size.next_multiple_of(4) };
    Ok(vk::DescriptorBufferInfo::default().buffer(raw).offset(offset).range(size))
}

/// Of binding `i` where `n_buffers` come before the parameters.
fn descriptor_type(i: usize, n_buffers: usize) -> vk::DescriptorType {
    if i < n_buffers {
        vk::DescriptorType::STORAGE_BUFFER
    } else {
        vk::DescriptorType::UNIFORM_BUFFER
    }
}

/// The newest that a version of Vulkan takes.
fn spirv_version(api: u32) -> (u8, u8) {
    match api {
        vk::API_VERSION_1_3.. => (1, 6),
        vk::API_VERSION_1_2.. => (1, 5),
        vk::API_VERSION_1_1.. => (1, 3),
        _ => (1, 0),
    }
}

/// What programs may use. The device has what a program needs, or its variant would not have been chosen; products
/// of packed bytes are no need: without them they are written out.
fn spirv_capabilities(has_dot: bool) -> Vec<spv::Capability> {
    use spv::Capability as C;
    let always = [
        C::Shader,
        C::Matrix,
        C::Float16,
        C::GroupNonUniform,
        C::GroupNonUniformVote,
        C::GroupNonUniformArithmetic,
        C::GroupNonUniformBallot,
        C::GroupNonUniformShuffle,
        C::GroupNonUniformShuffleRelative,
        C::GroupNonUniformQuad,
        C::CooperativeMatrixKHR,
        C::VulkanMemoryModel,
    ];
    let dot = [C::DotProductKHR, C::DotProductInputAllKHR, C::DotProductInput4x8BitKHR];
    let dot = dot.into_iter().chain([C::DotProductInput4x8BitPackedKHR]);
    always.into_iter().chain(dot.filter(|_| has_dot)).collect()
}

fn failed(error: vk::Result) -> Error {
    Error::Device { reason: error.to_string() }
}
