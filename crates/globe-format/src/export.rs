//! Writes a checkpoint with an adapter merged into it, or with trained weights in place of its own, as
//! a Hugging Face folder: streamed, and complete or not there.
//!
//! Every tensor keeps its name and element type. Those that change are computed in f64 and rounded
//! once, to the nearest value and to even from the middle; all others are copied byte by
//! byte. A few rows are in memory at a time. The bytes depend on the inputs alone.

mod partial;
mod plan;
mod round;
#[cfg(test)]
mod tests;

use std::{future::Future, ops::Range, path::Path};

use self::{
    partial::Partial,
    plan::{Plan, Shard},
};
use crate::{
    checkpoint::{Checkpoint, TensorInfo},
    error::{Error, Result},
    lora::Merged,
    pack::{disk::OutFolder, write_error, write_file},
    replaced::Replaced,
    source::Source,
};

/// Tensors of a base, some of them with other values.
pub trait Changed {
    /// Where the base is read from.
    type Source: Source;

    /// The tensors before.
    fn base(&self) -> &Checkpoint<Self::Source>;

    /// Whether a tensor of the base has other values.
    fn changes(&self, name: &str) -> bool;

    /// Some elements of a tensor in row-major order, before they are rounded.
    ///
    /// # Errors
    /// What reading found.
    fn read_f64_range(
        &self,
        name: &str,
        elements: Range<usize>,
    ) -> impl Future<Output = Result<Vec<f64>>>;
}

impl<B: Source, A: Source> Changed for Merged<Checkpoint<B>, A> {
    type Source = B;

    fn base(&self) -> &Checkpoint<B> {
        self.base()
    }

    fn changes(&self, name: &str) -> bool {
        self.adapter().changes(name)
    }

    async fn read_f64_range(&self, name: &str, elements: Range<usize>) -> Result<Vec<f64>> {
        self.read_f64_range(name, elements).await
    }
}

impl<B: Source, W: Source> Changed for Replaced<B, W> {
    type Source = B;

    fn base(&self) -> &Checkpoint<B> {
        self.base()
    }

    fn changes(&self, name: &str) -> bool {
        self.changes(name)
    }

    async fn read_f64_range(&self, name: &str, elements: Range<usize>) -> Result<Vec<f64>> {
        self.read_f64_range(name, elements).await
    }
}

/// Most values that are read, merged and written at a time: 8 MiB as f64.
const CHUNK_VALUES: usize = 1 << 20;

/// Most bytes of an unchanged tensor that are copied at a time.
const CHUNK_BYTES: u64 = 4 << 20;

/// What goes into the folder beside the tensors, and how those are cut.
#[derive(Clone, Debug)]
pub struct ExportJob {
    /// Small files to be copied, by plain name.
    pub files: Vec<(String, Vec<u8>)>,
    /// Most bytes of tensors in a file of weights; a larger tensor gets a file of its own.
    pub shard_bytes: u64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Tensors.
    pub n_tensors: usize,
    /// Those that have other values than in the base.
    pub n_merged: usize,
    /// Bytes of all tensors.
    pub total_bytes: u64,
    /// Files with weights.
    pub n_shards: usize,
}

/// Writes `merged` to the folder `out`, which must be absent or empty.
///
/// All is written to a folder beside it, whose name has `.partial` appended, and which is renamed at
/// the end. An error removes that folder; a crash may leave it, and the next run clears it. In it,
/// the file that makes a folder a model comes last. `on_bytes` is told how many bytes are done and
/// how many there will be; once it returns false, nothing is left.
///
/// # Errors
/// [`Error::OutputTaken`], [`Error::DiskFull`], [`Error::WriteFile`], [`Error::MergedOverflow`],
/// [`Error::Cancelled`], or what reading found.
pub async fn export<C: Changed>(
    job: &ExportJob,
    merged: &C,
    out: &Path,
    on_bytes: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Exported> {
    let plan = Plan::new(merged.base(), job)?;
    let partial = Partial::create(out, &plan)?;
    let mut disk = partial.disk()?;
    let total_bytes = plan.total_bytes;
    let mut run = Run { merged, disk: &mut disk, on_bytes, done: 0, total_bytes };
    run.write(&plan, &job.files).await?;
    partial.finish()?;
    let names = plan.shards.iter().flat_map(|shard| &shard.tensors);
    let n_merged = names.filter(|tensor| merged.changes(&tensor.name)).count();
    let (n_tensors, n_shards) = (merged.base().names().len(), plan.shards.len());
    Ok(Exported { n_tensors, n_merged, total_bytes, n_shards })
}

/// One export.
struct Run<'a, C, O> {
    merged: &'a C,
    disk: &'a mut O,
    on_bytes: &'a mut dyn FnMut(u64, u64) -> bool,
    done: u64,
    total_bytes: u64,
}

impl<C: Changed, O: OutFolder> Run<'_, C, O> {
    /// Small files, weights, and last the index, if there is one.
    async fn write(&mut self, plan: &Plan<'_>, files: &[(String, Vec<u8>)]) -> Result<()> {
        for (name, bytes) in files {
            write_file(self.disk, name, bytes)?;
        }
        for shard in &plan.shards {
            self.write_shard(shard).await?;
        }
        match &plan.index {
            Some((name, json)) => write_file(self.disk, name, json),
            None => Ok(()),
        }
    }

    async fn write_shard(&mut self, shard: &Shard<'_>) -> Result<()> {
        self.on_disk(shard, |disk| disk.create(&shard.name))?;
        self.on_disk(shard, |disk| disk.append(&shard.header))?;
        for tensor in &shard.tensors {
            match self.merged.changes(&tensor.name) {
                true => self.write_merged(shard, tensor).await?,
                false => self.copy(shard, tensor).await?,
            }
        }
        self.on_disk(shard, O::sync)?;
        self.on_disk(shard, O::publish)
    }

    async fn write_merged(&mut self, shard: &Shard<'_>, tensor: &TensorInfo) -> Result<()> {
        let cols = tensor.shape.last().copied().unwrap_or(1).max(1);
        let step = cols * (CHUNK_VALUES / cols).max(1);
        for elements in chunks(tensor.n_elements() as u64, step as u64) {
            let elements = elements.start as usize..elements.end as usize;
            let first = elements.start;
            let values = self.merged.read_f64_range(&tensor.name, elements).await?;
            let bytes = round::to_bytes(tensor.dtype, &values).map_err(|too_large| {
                let at = first + too_large.at;
                let (tensor, dtype) = (tensor.stored_name.clone(), tensor.dtype);
                Error::MergedOverflow { tensor, at, value: too_large.value, dtype }
            })?;
            self.append(shard, &bytes)?;
        }
        Ok(())
    }

    async fn copy(&mut self, shard: &Shard<'_>, tensor: &TensorInfo) -> Result<()> {
        let merged = self.merged;
        for range in chunks(tensor.size_bytes(), CHUNK_BYTES) {
            let bytes = merged.base().read_bytes_range(&tensor.name, range).await?;
            self.append(shard, &bytes)?;
        }
        Ok(())
    }

    fn append(&mut self, shard: &Shard<'_>, bytes: &[u8]) -> Result<()> {
        self.on_disk(shard, |disk| disk.append(bytes))?;
        self.done += bytes.len() as u64;
        if (self.on_bytes)(self.done, self.total_bytes) { Ok(()) } else { Err(Error::Cancelled) }
    }

    /// An operation on the file of a shard, with the file in the error.
    fn on_disk(
        &mut self,
        shard: &Shard<'_>,
        operation: impl FnOnce(&mut O) -> std::io::Result<()>,
    ) -> Result<()> {
        let missing = self.total_bytes - self.done;
        operation(self.disk).map_err(|error| write_error(&shard.name, missing, error))
    }
}

/// `0..end` in pieces of `step`.
fn chunks(end: u64, step: u64) -> impl Iterator<Item = Range<u64>> {
    (0..end).step_by(step as usize).map(move |start| start..end.min(start + step))
}
