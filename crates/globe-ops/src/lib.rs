//! The kernels as Burn ops; the only crate that names Burn, CubeCL or wgpu.
