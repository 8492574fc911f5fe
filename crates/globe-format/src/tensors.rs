//! Tensors to be packed, wherever they come from.

use std::{future::Future, ops::Range};

use crate::{checkpoint::Checkpoint, error::Result, source::Source};

/// Named tensors that can be read as `f32`, some elements at a time.
///
/// A checkpoint is one, a checkpoint with an adapter merged into it another.
pub trait SourceTensors {
    /// All names, sorted.
    fn tensor_names(&self) -> Vec<String>;

    /// Dimensions of a tensor, outermost first, or `None` if there is no such tensor.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Some elements of a tensor in row-major order, every one finite.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`](crate::Error::UnknownTensor),
    /// [`Error::ElementRange`](crate::Error::ElementRange), or what reading found.
    fn read_range(
        &self,
        name: &str,
        elements: Range<usize>,
    ) -> impl Future<Output = Result<Vec<f32>>>;
}

impl<S: Source> SourceTensors for Checkpoint<S> {
    fn tensor_names(&self) -> Vec<String> {
        self.names().map(str::to_owned).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.info(name).map(|info| info.shape.clone())
    }

    async fn read_range(&self, name: &str, elements: Range<usize>) -> Result<Vec<f32>> {
        self.read_f32_range(name, elements).await
    }
}
