//! Packs the tensors of a model into a folder: streamed, resumable, and complete or not there.
//!
//! Places of all arrays follow from the specs, so shards are written in order and a few rows are
//! in memory at a time. A journal names the shards that are finished; the manifest comes last, by a
//! rename, and without it a folder is no model. The bytes depend on inputs and options alone.

pub(crate) mod disk;
mod resume;
mod rows;
mod shards;
#[cfg(test)]
mod tests;

use std::{num::NonZero, ops::Range, path::Path, thread};

pub(crate) use self::shards::write_file;
use self::{
    disk::{Disk, OutFolder},
    shards::ShardWriter,
};
use crate::{
    error::{Error, Result},
    mapped::Folder,
    packed::{
        ALIGN_BYTES, FORMAT_NAME, FileEntry, JOURNAL_FILE, MANIFEST_FILE, Manifest, PackedTensor,
        Part, Provenance, TensorSpec, VERSION, format_of_bits, plan, sha256,
    },
    quant::{Quantized, WeightFormat, quantize},
    source::{Files, is_plain_name},
    tensors::SourceTensors,
};

/// Most values that are read, packed and written at a time: 4 MiB as f32.
const CHUNK_VALUES: usize = 1 << 20;

/// Most threads that pack; more would wait for the disk.
const MAX_THREADS: usize = 16;

/// How a model is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackOptions {
    /// Bits of the language model's matrices: 4, 8, 16 or 32.
    pub bits: u32,
    /// Bits of the vision tower's matrices: 4, 8, 16 or 32.
    pub vision_bits: u32,
    /// Bytes of a shard, a multiple of 256.
    pub shard_bytes: u64,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { bits: 4, vision_bits: 8, shard_bytes: 64 << 20 }
    }
}

/// What becomes a packed folder.
#[derive(Clone, Debug)]
pub struct PackJob<'a> {
    /// `model_type` of the configuration.
    pub architecture: &'a str,
    /// The tensors in the order of their bytes.
    pub specs: &'a [TensorSpec],
    /// How they are packed.
    pub options: PackOptions,
    /// What they are made from. Another digest makes a conversion start over.
    pub source: Provenance,
    /// Small files to be copied, by plain name.
    pub files: Vec<(String, Vec<u8>)>,
}

/// What happens during a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackEvent {
    /// Shards of an earlier run are intact and are kept.
    Resumed {
        /// How many.
        shards: usize,
    },
    /// An earlier run had other inputs or options; what it wrote was deleted.
    StartedOver,
    /// The folder was already complete, and every file in it is intact.
    AlreadyDone,
    /// Bytes of the result that are done, and how many there will be.
    Progress {
        /// Done.
        done: u64,
        /// In all.
        total: u64,
    },
}

/// Packs `tensors` into the folder `out`, which must be absent, empty, or of an earlier run.
///
/// Between two pieces of work `cancelled` is asked; an error or a crash at any point leaves no
/// manifest, and the finished shards for the next run.
///
/// # Errors
/// [`Error::Names`] listing tensors that are missing or of another size, [`Error::OutputTaken`],
/// [`Error::DiskFull`], [`Error::Cancelled`], [`Error::Quantize`] naming the tensor.
pub async fn pack<T: SourceTensors>(
    job: &PackJob<'_>,
    tensors: &T,
    out: &Path,
    on_event: &mut dyn FnMut(PackEvent),
    cancelled: &dyn Fn() -> bool,
) -> Result<Manifest> {
    let draft = job.draft()?;
    rows::check_sources(job.specs, tensors)?;
    let mut disk = Disk::create(out.into())
        .map_err(|error| write_error(&out.display().to_string(), 0, error))?;
    let folder = Folder::open(out)?;
    let mut run = Run { job, draft, on_event, cancelled };
    run.pack(tensors, &folder, &mut disk).await
}

impl PackJob<'_> {
    /// The manifest without digests, which shows everything that decides the bytes.
    fn draft(&self) -> Result<Manifest> {
        let PackOptions { bits, vision_bits, shard_bytes } = self.options;
        let format = |field: &'static str, bits: u32| {
            let reason = || format!("{bits} bits; known are 4, 8, 16 and 32");
            format_of_bits(bits).ok_or_else(|| Error::PackOption { field, reason: reason() })
        };
        let (text, vision) = (format("bits", bits)?, format("vision_bits", vision_bits)?);
        if shard_bytes == 0 || !shard_bytes.is_multiple_of(ALIGN_BYTES) {
            let reason = format!("{shard_bytes} is not a positive multiple of {ALIGN_BYTES}");
            return Err(Error::PackOption { field: "shard_bytes", reason });
        }
        let (tensors, total_bytes) = plan(self.specs, text, vision)?;
        let files = self.files.iter().map(|(name, bytes)| FileEntry {
            name: name.clone(),
            size: bytes.len() as u64,
            sha256: sha256(bytes),
        });
        if let Some((name, _)) = self.files.iter().find(|(name, _)| !is_free_name(name)) {
            let reason = format!("`{name}` cannot be the name of a copied file");
            return Err(Error::PackOption { field: "files", reason });
        }
        Ok(Manifest {
            format: FORMAT_NAME.into(),
            version: VERSION,
            architecture: self.architecture.into(),
            bits,
            vision_bits,
            source: self.source.clone(),
            shard_bytes,
            total_bytes,
            shards: Vec::new(),
            sha256: String::new(),
            files: files.collect(),
            tensors,
        })
    }
}

/// A name that no file of the format has.
fn is_free_name(name: &str) -> bool {
    let taken = name == MANIFEST_FILE || name == JOURNAL_FILE || shards::is_shard_name(name);
    is_plain_name(name) && !taken && !name.ends_with(disk::TEMPORARY)
}

/// One conversion.
struct Run<'a> {
    job: &'a PackJob<'a>,
    draft: Manifest,
    on_event: &'a mut dyn FnMut(PackEvent),
    cancelled: &'a dyn Fn() -> bool,
}

impl Run<'_> {
    async fn pack<T: SourceTensors, F: Files, O: OutFolder>(
        &mut self,
        tensors: &T,
        folder: &F,
        out: &mut O,
    ) -> Result<Manifest> {
        let result = self.pack_steps(tensors, folder, out).await;
        if result.is_err() {
            // Best effort: room for others, and the next run does the same.
            out.discard();
        }
        result
    }

    async fn pack_steps<T: SourceTensors, F: Files, O: OutFolder>(
        &mut self,
        tensors: &T,
        folder: &F,
        out: &mut O,
    ) -> Result<Manifest> {
        if let Some(done) = self.already_done(folder, out).await? {
            return Ok(done);
        }
        let (journal, whole) = self.resume(folder, out).await?;
        let sizes = (self.draft.shard_bytes, self.draft.total_bytes);
        let mut writer = ShardWriter::new(out, journal, whole, sizes);
        for (spec, tensor) in self.job.specs.iter().zip(self.draft.tensors.clone()) {
            for part in &tensor.parts {
                self.pack_part(spec, &tensor, part, tensors, &mut writer).await?;
            }
        }
        writer.pad_to(sizes.1)?;
        self.progress(sizes.1);
        let (shards, sha256) = writer.finish();
        for (name, bytes) in &self.job.files {
            write_file(out, name, bytes)?;
        }
        let manifest = Manifest { shards, sha256, ..self.draft.clone() };
        write_file(out, MANIFEST_FILE, &manifest.to_json()?)?;
        out.remove(JOURNAL_FILE).map_err(|error| write_error(JOURNAL_FILE, 0, error))?;
        Ok(manifest)
    }

    /// Writes words and scales of one part, a few rows at a time.
    async fn pack_part<T: SourceTensors, O: OutFolder>(
        &mut self,
        spec: &TensorSpec,
        tensor: &PackedTensor,
        part: &Part,
        tensors: &T,
        writer: &mut ShardWriter<'_, O>,
    ) -> Result<()> {
        let end = part.scales.unwrap_or(part.words).end();
        if writer.has(end) {
            writer.skip_to(end);
            return Ok(());
        }
        writer.pad_to(part.words.offset)?;
        let values = CHUNK_VALUES.min(self.draft.shard_bytes as usize / 16);
        let step = (values / tensor.cols()).max(1);
        let steps = || {
            let end = part.first_row + part.rows;
            (part.first_row..end).step_by(step).map(move |first| first..(first + step).min(end))
        };
        // Scales follow all words. Where they are longer than a file, they are computed once more instead of held.
        let held = part.scales.is_some_and(|extent| extent.size <= self.draft.shard_bytes);
        let mut scales = Vec::new();
        let words_end = part.words.end();
        let has_words = !held && writer.has(words_end);
        if has_words {
            writer.skip_to(words_end);
        }
        for rows in steps().filter(|_| !has_words) {
            let packed = self.packed_rows(spec, tensor, tensors, rows).await?;
            writer.write_words(&packed.words)?;
            if held {
                scales.extend(packed.scales.iter().flat_map(|scale| scale.to_le_bytes()));
            }
            self.progress(writer.done());
        }
        let Some(extent) = part.scales else { return Ok(()) };
        writer.pad_to(extent.offset)?;
        if held {
            return writer.write(&scales);
        }
        for rows in steps() {
            let packed = self.packed_rows(spec, tensor, tensors, rows).await?;
            scales.clear();
            scales.extend(packed.scales.iter().flat_map(|scale| scale.to_le_bytes()));
            writer.write(&scales)?;
            self.progress(writer.done());
        }
        Ok(())
    }

    /// Words and scales of some rows.
    async fn packed_rows<T: SourceTensors>(
        &self,
        spec: &TensorSpec,
        tensor: &PackedTensor,
        tensors: &T,
        rows: Range<usize>,
    ) -> Result<Quantized> {
        if (self.cancelled)() {
            return Err(Error::Cancelled);
        }
        let values = rows::gather(spec, tensors, rows.clone()).await?;
        let packed = match tensor.is_vector() {
            true => plain(values),
            false => pack_rows(tensor.format, &values, rows.len(), tensor.cols()),
        };
        packed.map_err(|error| Error::Quantize {
            tensor: spec.name.clone(),
            source: error.after(rows.start),
        })
    }

    fn progress(&mut self, done: u64) {
        (self.on_event)(PackEvent::Progress { done, total: self.draft.total_bytes });
    }
}

/// The words of a vector: its elements, whose number is not padded.
fn plain(values: Vec<f32>) -> std::result::Result<Quantized, crate::QuantError> {
    // One column per row keeps the index of a refused value right.
    if let Some(row) = values.iter().position(|x| !x.is_finite()) {
        return Err(crate::QuantError::NotFinite { row, col: 0, value: values[row] });
    }
    let words = values.into_iter().map(f32::to_bits).collect();
    Ok(Quantized { words, scales: Vec::new() })
}

/// [`quantize`] on all cores; the result does not depend on their number.
fn pack_rows(
    format: WeightFormat,
    values: &[f32],
    rows: usize,
    cols: usize,
) -> std::result::Result<Quantized, crate::QuantError> {
    let n_threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
    let step = rows.div_ceil(n_threads).max(1);
    if step >= rows {
        return quantize(format, values, rows, cols);
    }
    let parts = thread::scope(|scope| {
        let spawn = |(i, values)| scope.spawn(move || pack_share(format, i, values, (step, cols)));
        let threads: Vec<_> = values.chunks(step * cols).enumerate().map(spawn).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let mut whole = Quantized::default();
    for part in parts {
        // A thread can only panic by a mistake of ours, which goes on as the same panic.
        let part = part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        whole.words.extend(part.words);
        whole.scales.extend(part.scales);
    }
    Ok(whole)
}

fn pack_share(
    format: WeightFormat,
    idx: usize,
    values: &[f32],
    (step, cols): (usize, usize),
) -> std::result::Result<Quantized, crate::QuantError> {
    let packed = quantize(format, values, values.len() / cols, cols);
    packed.map_err(|error| error.after(idx * step))
}

/// A failed write, with the file; a full disk is told apart.
pub(crate) fn write_error(file: &str, missing_bytes: u64, source: std::io::Error) -> Error {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let file = file.into();
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            Error::DiskFull { file, missing_bytes, source }
        }
        _ => Error::WriteFile { file, source },
    }
}
