//! Stands for `vulkan.rs` where wgpu never drives Vulkan: there is no such device.

use std::sync::Arc;

use burn::tensor::wgpu::wgpu;

use crate::Result;
use crate::raw_loop::{Launch, RawQueue};

pub(crate) const IS_DRIVEN: bool = false;

pub(crate) fn memory_bytes(_: &wgpu::Adapter) -> Option<u64> {
    None
}

#[derive(Debug)]
pub(crate) enum Vulkan {}

impl Vulkan {
    pub(crate) fn of(_: &wgpu::Device) -> Option<Arc<Self>> {
        None
    }
}

pub(crate) enum Commands {}

impl Commands {
    pub(crate) fn record(vulkan: &Arc<Vulkan>, _: &RawQueue, _: &[Launch]) -> Result<Self> {
        match **vulkan {}
    }

    pub(crate) fn run(&self, _: usize) {
        match *self {}
    }
}
