//! The one path from a checkpoint to tensors on the device.

use globe_format::{Checkpoint, Source};
use globe_ops::{Compute, Device, Tensor, tensor_f32};

use crate::{Error, Result};

/// Tensors under one prefix of a checkpoint.
pub(crate) struct Weights<'a, S> {
    checkpoint: &'a Checkpoint<S>,
    compute: &'a Compute,
    prefix: String,
}

impl<'a, S: Source> Weights<'a, S> {
    /// All tensors. Names and shapes must have been checked before.
    pub(crate) fn new(checkpoint: &'a Checkpoint<S>, compute: &'a Compute) -> Self {
        Self { checkpoint, compute, prefix: String::new() }
    }

    /// The tensors below `name`.
    pub(crate) fn at(&self, name: impl std::fmt::Display) -> Self {
        let prefix = self.name(&name.to_string());
        Self { checkpoint: self.checkpoint, compute: self.compute, prefix }
    }

    fn name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// A tensor as a matrix: the first dimension by all others.
    pub(crate) async fn matrix(&self, name: &str) -> Result<Tensor<2>> {
        self.matrix_part(name, 0, 1).await
    }

    /// Part `index` of `parts` equal groups of rows of a matrix.
    pub(crate) async fn matrix_part(
        &self,
        name: &str,
        index: usize,
        parts: usize,
    ) -> Result<Tensor<2>> {
        let rows = self.shape(name).first().copied().unwrap_or(1) / parts;
        let values = self.read_part(name, index, parts).await?;
        let columns = values.len() / rows.max(1);
        Ok(tensor_f32(values, [rows, columns], &self.compute.device))
    }

    /// A tensor as a vector.
    pub(crate) async fn vector(&self, name: &str) -> Result<Tensor<1>> {
        self.vector_part(name, 0, 1).await
    }

    /// Part `index` of `parts` equal groups of elements of a vector.
    pub(crate) async fn vector_part(
        &self,
        name: &str,
        index: usize,
        parts: usize,
    ) -> Result<Tensor<1>> {
        let values = self.read_part(name, index, parts).await?;
        let len = values.len();
        Ok(tensor_f32(values, [len], &self.compute.device))
    }

    /// Whether the checkpoint has this tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.checkpoint.info(&self.name(name)).is_some()
    }

    /// Where tensors live.
    pub(crate) fn device(&self) -> &Device {
        &self.compute.device
    }

    fn shape(&self, name: &str) -> &[usize] {
        self.checkpoint.info(&self.name(name)).map_or(&[], |info| &info.shape)
    }

    async fn read_part(&self, name: &str, index: usize, parts: usize) -> Result<Vec<f32>> {
        let elements = self.shape(name).iter().product::<usize>();
        let name = self.name(name);
        let size_bytes = 4 * (elements / parts) as u64;
        let limit_bytes = self.compute.max_binding_bytes;
        if size_bytes > limit_bytes {
            return Err(Error::TensorTooLarge { name, size_bytes, limit_bytes });
        }
        let range = index * elements / parts..(index + 1) * elements / parts;
        Ok(self.checkpoint.read_f32_range(&name, range).await?)
    }
}
