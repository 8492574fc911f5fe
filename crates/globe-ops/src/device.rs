//! Choosing and opening the device that tensors live on.

use burn::tensor::wgpu::wgpu;
use burn::tensor::{Device, DeviceKind, Int, Tensor};
pub use globe_shaders::Fragment;
use globe_shaders::{Stage, Team};

use crate::raw_loop::RawQueue;
use crate::reduce::{note_opened, reduce_of};
use crate::replay::{Replay, asked};
use crate::{Error, Result, tensor_f32, tensor_i32, vulkan};

/// Dispatches gathered into one submission: more than a decode step has, so that one is one.
pub const TASKS_MAX: usize = 1024;
/// Environment variable that forces the kernels of packed matrices, by [`Variant::name`].
const VARIANT_VARIABLE: &str = "GLOBE_LINEAR";

/// Which kernels multiply by packed matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// A weight row per lane, or a query, and the rest broadcast within the subgroup: fastest on software adapters.
    Lanes,
    /// The same in subgroups of four, for software adapters that compile loops as they stand: SwiftShader.
    Quads,
    /// As [`Variant::Subgroups`], but tiles are products of 16-bit matrices that subgroups hold.
    Cooperative(Fragment),
    /// As [`Variant::Subgroups`], but tiles wait in workgroup memory as 16-bit floats.
    Half,
    /// As [`Variant::Teams`], but up to 16 rows are rounded to 8 bits and multiplied by weights of 4 and 8
    /// bits as integers, four at a time.
    PackedDot,
    /// 32 lanes walk a weight row together and add up within subgroups, tiles for many rows: for GPUs.
    Subgroups,
    /// The same through workgroup memory: runs everywhere.
    Teams,
}

impl Variant {
    /// Every variant.
    pub const ALL: [Self; 9] = [
        Self::Lanes,
        Self::Quads,
        Self::Cooperative(Fragment::Side16Lanes32),
        Self::Cooperative(Fragment::Side8Lanes32),
        Self::Cooperative(Fragment::Side8Lanes8),
        Self::Half,
        Self::PackedDot,
        Self::Subgroups,
        Self::Teams,
    ];

    /// Its name, as in `GLOBE_LINEAR`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lanes => "lanes",
            Self::Quads => "quads",
            Self::Cooperative(_) => "cooperative",
            Self::Half => "half",
            Self::PackedDot => "packed_dot",
            Self::Subgroups => "subgroups",
            Self::Teams => "teams",
        }
    }

    /// Whether products round what others do not, so that tokens may differ from theirs.
    pub const fn rounds(self) -> bool {
        matches!(self, Self::PackedDot) || self.rounds_tiles()
    }

    /// Whether products of many rows round their factors to 16 bits.
    pub const fn rounds_tiles(self) -> bool {
        matches!(self, Self::Cooperative(_) | Self::Half)
    }

    /// What the environment asks for, if it does and the adapter can run it.
    ///
    /// # Errors
    /// [`Error::Variant`] if it asks for anything else.
    fn asked(adapter: &Adapter) -> Result<Option<Self>> {
        let choices: Vec<Self> = adapter.variants().collect();
        asked(VARIANT_VARIABLE, &choices, Self::name, adapter)
    }

    /// What suits the adapter, unless the environment asks for another that it can run. Variants that
    /// round are taken only when they are asked for.
    fn choose(adapter: &Adapter) -> Self {
        let suits = |variant: &Self| match variant {
            Self::Lanes | Self::Quads => adapter.software,
            _ => !variant.rounds(),
        };
        let asked = Self::asked(adapter).unwrap_or_default();
        asked.or_else(|| adapter.variants().find(suits)).unwrap_or(Self::Teams)
    }

    /// How sums are put together where several lanes share a weight row.
    pub(crate) fn team(self) -> Team {
        match self {
            Self::Lanes | Self::Quads | Self::PackedDot | Self::Teams => Team::Plain,
            Self::Cooperative(_) | Self::Half | Self::Subgroups => Team::Subgroup,
        }
    }

    /// How the factors of a tile wait in workgroup memory.
    pub(crate) fn stage(self) -> Stage {
        if self.rounds_tiles() { Stage::F16 } else { Stage::F32 }
    }
}

/// Which processor computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU if there is one, else a software GPU, else the CPU path.
    #[default]
    Auto,
    /// A hardware GPU.
    Gpu,
    /// A software implementation of Vulkan or WebGPU: the same kernels, slower.
    Software,
    /// The oracle of every kernel in plain Rust: no driver needed, slowest.
    Cpu,
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "gpu" => Ok(Self::Gpu),
            "software" => Ok(Self::Software),
            "cpu" => Ok(Self::Cpu),
            other => Err(format!("unknown device `{other}`; use auto, gpu, software or cpu")),
        }
    }
}

/// One adapter as its driver describes it.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Name given by the driver.
    pub name: String,
    /// Graphics API: vulkan, metal, dx12, gl, webgpu.
    pub api: String,
    /// Whether it computes on the CPU.
    pub software: bool,
    /// Whether what it holds is taken from the host's memory: software, and processors with graphics of their own.
    pub shares_host_memory: bool,
    /// Driver name and version.
    pub driver: String,
    /// Largest buffer a kernel can bind, bytes.
    pub max_binding_bytes: u64,
    /// Whether shaders may use f16, subgroups and timestamps.
    pub features: AdapterFeatures,
    /// Fewest and most invocations of a subgroup.
    pub subgroup_size: (u32, u32),
    /// Matrices of 16-bit factors that its subgroups hold.
    pub fragment: Option<Fragment>,
    /// What a program may take of its own memory, bytes, where it has memory of its own and Vulkan tells.
    pub memory_bytes: Option<u64>,
}

impl Adapter {
    /// Which kernels multiply by packed matrices and attend on it.
    pub fn variant(&self) -> Variant {
        Variant::choose(self)
    }

    /// Every choice of kernels that it can run, the fastest first.
    pub fn variants(&self) -> impl Iterator<Item = Variant> {
        Variant::ALL.into_iter().filter(|variant| self.can_run(*variant))
    }

    /// Whether it has what a variant needs.
    pub fn can_run(&self, variant: Variant) -> bool {
        let has = self.features.subgroups;
        let (least, most) = self.subgroup_size;
        match variant {
            Variant::Lanes => has && (least, most) == (8, 8),
            Variant::Quads => has && (least, most) == (4, 4),
            // A team of 32 must hold whole subgroups, also where the driver may choose their size; its
            // workgroup memory has room for subgroups of 4, WebGPU's smallest.
            Variant::Subgroups => has && least.is_power_of_two() && least >= 4 && most <= 32,
            Variant::Half => self.features.f16 && self.can_run(Variant::Subgroups),
            Variant::Cooperative(fragment) => {
                self.fragment == Some(fragment) && self.can_run(Variant::Half)
            }
            Variant::PackedDot | Variant::Teams => true,
        }
    }
}

/// Optional abilities that faster kernel variants use.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdapterFeatures {
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// Subgroup operations.
    pub subgroups: bool,
    /// GPU timestamps.
    pub timestamps: bool,
}

/// Every adapter of this machine, in the order in which [`DeviceChoice::Auto`] takes them.
pub async fn adapters() -> Vec<Adapter> {
    found_adapters().await.iter().map(describe).collect()
}

fn describe(adapter: &wgpu::Adapter) -> Adapter {
    let info = adapter.get_info();
    let features = adapter.features();
    Adapter {
        name: info.name,
        api: info.backend.to_str().to_owned(),
        software: info.device_type == wgpu::DeviceType::Cpu,
        shares_host_memory: shares_host_memory(info.device_type),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        max_binding_bytes: adapter.limits().max_storage_buffer_binding_size,
        features: AdapterFeatures {
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups: features.contains(wgpu::Features::SUBGROUP),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        },
        subgroup_size: (info.subgroup_min_size, info.subgroup_max_size),
        fragment: fragment(adapter),
        memory_bytes: Some(adapter)
            .filter(|_| info.device_type == wgpu::DeviceType::DiscreteGpu)
            .and_then(vulkan::memory_bytes),
    }
}

/// Whether what the device holds is taken from the host's memory.
fn shares_host_memory(kind: wgpu::DeviceType) -> bool {
    matches!(kind, wgpu::DeviceType::Cpu | wgpu::DeviceType::IntegratedGpu)
}

/// Square matrices of 16-bit factors and 32-bit sums, in subgroups whose size is known.
fn fragment(adapter: &wgpu::Adapter) -> Option<Fragment> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let info = adapter.get_info();
    let known = adapter.cooperative_matrix_properties();
    let has = |fragment: &Fragment| {
        let (side, lanes) = (fragment.side(), fragment.lanes());
        (info.subgroup_min_size, info.subgroup_max_size) == (lanes, lanes)
            && known.iter().any(|p| {
                [p.m_size, p.n_size, p.k_size] == [side; 3] && (p.ab_type, p.cr_type) == (F16, F32)
            })
    };
    Fragment::ALL.into_iter().find(has)
}

/// An open device and what the loader must know of it.
#[derive(Clone, Debug)]
pub struct Compute {
    /// Where tensors live.
    pub device: Device,
    /// Name of the adapter.
    pub name: String,
    /// Largest buffer a kernel can bind, bytes.
    pub max_binding_bytes: u64,
    pub(crate) variant: Variant,
    variants: Vec<Variant>,
    pub(crate) nothing: [Tensor<1>; 3],
    pub(crate) no_scales: Tensor<1, Int>,
    shares_host_memory: bool,
    memory_bytes: Option<u64>,
    wgpu: Option<RawQueue>,
}

impl Compute {
    /// The oracle of every kernel in plain Rust.
    #[cfg(feature = "flex")]
    pub fn cpu() -> Self {
        let (device, name) = (Device::flex(), "cpu (reference kernels)".into());
        let (nothing, no_scales) = (nothing(&device), no_scales(&device));
        let (max_binding_bytes, variant) = (u64::MAX, Variant::Teams);
        Self {
            device,
            name,
            max_binding_bytes,
            variant,
            variants: vec![variant],
            nothing,
            no_scales,
            shares_host_memory: true,
            memory_bytes: None,
            wgpu: None,
        }
    }

    /// Whether tensors live on an adapter, which replays graphs and chooses tokens.
    pub fn is_gpu(&self) -> bool {
        self.wgpu.is_some()
    }

    /// Whether device memory is the host's own: on the CPU path, on software adapters and on integrated ones.
    pub fn shares_host_memory(&self) -> bool {
        self.shares_host_memory
    }

    /// What a program could take of the adapter's own memory when it was opened, bytes, where that is known.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory_bytes
    }

    /// Which kernels multiply by packed matrices and attend.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Every choice of kernels for packed matrices that it can run.
    pub fn variants(&self) -> &[Variant] {
        &self.variants
    }

    /// The same device with other kernels for packed matrices, one of [`Compute::variants`].
    pub fn with_variant(self, variant: Variant) -> Self {
        Self { variant, ..self }
    }

    /// What hands recorded steps to it, where it is an adapter.
    pub fn replay(&self) -> Replay {
        let on_vulkan = self.wgpu.as_ref().is_some_and(RawQueue::records);
        if on_vulkan { Replay::Vulkan } else { Replay::Wgpu }
    }

    /// The same device with recorded steps handed over otherwise, by one of [`Replay::choices`].
    pub fn with_replay(self, replay: Replay) -> Self {
        let wgpu = self.wgpu.map(|raw| RawQueue::new(raw.device, raw.queue, replay));
        Self { wgpu, ..self }
    }

    /// The same device, taken to bind no more than this many bytes.
    pub fn limited_to(self, max_binding_bytes: u64) -> Self {
        Self { max_binding_bytes, ..self }
    }

    /// Errors if the adapter cannot bind a buffer of so many bytes: left to the driver, it would end the program.
    ///
    /// # Errors
    /// [`Error::TooLarge`] with both sizes.
    pub fn check_binding(&self, size_bytes: u64) -> Result<()> {
        let limit_bytes = self.max_binding_bytes;
        if size_bytes > limit_bytes {
            Err(Error::TooLarge { size_bytes, limit_bytes })
        } else {
            Ok(())
        }
    }

    /// Device and queue of wgpu, for replays that go around CubeCL, which submits each of them alone and natively
    /// issues it on a thread of its own; `None` on the CPU path.
    pub fn raw_queue(&self) -> Option<RawQueue> {
        self.wgpu.clone()
    }

    /// Gives the adapter's memory back at once. Whatever is read from the device later is an
    /// error, as after a driver reset; the CPU path is not affected.
    pub fn destroy(&self) {
        if let Some(RawQueue { device, .. }) = &self.wgpu {
            device.destroy();
        }
    }
}

/// Opens the chosen device. Call it once per process and clone the result.
///
/// # Errors
/// [`Error::NoAdapter`] if there is no adapter of that kind.
pub async fn open_device(choice: DeviceChoice) -> Result<Compute> {
    open_device_with(choice, AdapterFeatures::default()).await
}

/// The same where `granted` are features that a page asked the browser for by itself: wgpu 30 does
/// not know that the web has subgroups, and would neither request nor report them.
///
/// # Errors
/// As [`open_device`].
pub async fn open_device_with(choice: DeviceChoice, granted: AdapterFeatures) -> Result<Compute> {
    let software = DeviceKind::Cpu;
    match choice {
        DeviceChoice::Cpu => cpu(),
        DeviceChoice::Software => open(software, "software", granted).await,
        DeviceChoice::Gpu => open(hardware_kind().await?, "hardware", granted).await,
        DeviceChoice::Auto => match hardware_kind().await {
            Ok(kind) => open(kind, "hardware", granted).await,
            Err(_) if has_software().await => open(software, "software", granted).await,
            Err(_) => cpu(),
        },
    }
}

#[cfg(feature = "flex")]
fn cpu() -> Result<Compute> {
    Ok(Compute::cpu())
}

#[cfg(not(feature = "flex"))]
fn cpu() -> Result<Compute> {
    Err(Error::NoAdapter { wanted: "cpu", reason: "this build has no CPU path".into() })
}

async fn open(kind: DeviceKind, wanted: &'static str, granted: AdapterFeatures) -> Result<Compute> {
    let options = Device::wgpu_options().device_kind(kind).tasks_max(TASKS_MAX);
    let (device, setup) = options
        .init_with_setup_async()
        .await
        .map_err(|e| Error::NoAdapter { wanted, reason: e.to_string() })?;
    let mut adapter = describe(&setup.adapter);
    adapter.features.subgroups |= granted.subgroups;
    Variant::asked(&adapter)?;
    let replay = Replay::of(&adapter)?;
    reduce_of(&adapter)?;
    note_opened(adapter.software);
    Ok(Compute {
        nothing: nothing(&device),
        no_scales: no_scales(&device),
        device,
        max_binding_bytes: setup.device.limits().max_storage_buffer_binding_size,
        variant: adapter.variant(),
        variants: adapter.variants().collect(),
        name: adapter.name,
        shares_host_memory: adapter.shares_host_memory,
        memory_bytes: adapter.memory_bytes,
        wgpu: Some(RawQueue::new(setup.device, setup.queue, replay)),
    })
}

/// Buffers for bindings that a call leaves out.
fn nothing(device: &Device) -> [Tensor<1>; 3] {
    // Four floats: some bindings are arrays of vec4.
    std::array::from_fn(|_| tensor_f32(vec![0.0; 4], [4], device))
}

/// Stands for the scales of formats without.
fn no_scales(device: &Device) -> Tensor<1, Int> {
    tensor_i32(vec![0; 4], [4], device)
}

/// The browser hands out one adapter and does not say what it is.
#[cfg(target_family = "wasm")]
async fn hardware_kind() -> Result<DeviceKind> {
    Ok(DeviceKind::DefaultDevice)
}

#[cfg(not(target_family = "wasm"))]
async fn hardware_kind() -> Result<DeviceKind> {
    use wgpu::DeviceType::{DiscreteGpu, IntegratedGpu, VirtualGpu};
    match found_adapters().await.first().map(|adapter| adapter.get_info().device_type) {
        Some(DiscreteGpu) => Ok(DeviceKind::DiscreteGpu(0)),
        Some(IntegratedGpu) => Ok(DeviceKind::IntegratedGpu(0)),
        Some(VirtualGpu) => Ok(DeviceKind::VirtualGpu(0)),
        _ => Err(Error::NoAdapter { wanted: "hardware", reason: "none is listed".into() }),
    }
}

async fn has_software() -> bool {
    found_adapters().await.iter().any(|a| a.get_info().device_type == wgpu::DeviceType::Cpu)
}

/// Adapters of the APIs whose compute limits the kernels are written for, the best kind first; OpenGL is not among them.
async fn found_adapters() -> Vec<wgpu::Adapter> {
    use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, Other, VirtualGpu};
    let backends = wgpu::Backends::PRIMARY;
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor { backends, ..descriptor });
    let mut found = instance.enumerate_adapters(backends).await;
    found.sort_by_key(|adapter| match adapter.get_info().device_type {
        DiscreteGpu => 0,
        IntegratedGpu => 1,
        VirtualGpu => 2,
        Other => 3,
        Cpu => 4,
    });
    found
}
