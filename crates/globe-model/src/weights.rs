//! The one path from stored weights to tensors on the device.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use globe_format::packed::{Class, Extent, Packed, PackedTensor, Part, TensorSpec, format_of_bits};
use globe_format::{Checkpoint, Dtype, Source, dequantize};
use globe_ops::{Compute, PackedMatrix, Tensor, Uploads, Variant, WeightFormat, flush, tensor_f32};

use crate::{Error, Result, WeightPlan};

/// f32 values that are converted at once: 4 MiB of them, so that no second copy of a matrix exists.
const CHUNK_VALUES: usize = 1 << 20;
/// Bytes of one binding that every WebGPU adapter allows.
const PART_BYTES: u64 = 128 << 20;

/// How weights are held on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are stored, in blocks that the fast kernels read; plain f32 on the CPU path.
    #[default]
    Stored,
    /// Plain f32 for the reference kernels, whatever is stored.
    Reference,
    /// Blocks of f32 that training changes in place; plain f32 on the CPU path. Needs a checkpoint:
    /// what was rounded to few bits is no start.
    Trained,
}

/// A matrix on the device.
#[derive(Clone)]
pub(crate) enum Matrix {
    /// `[rows, cols]` for the reference kernels.
    Dense(Box<Tensor<2>>),
    /// For the fast kernels.
    Packed(Box<PackedMatrix>),
}

/// Where weights are read from.
pub(crate) enum Store<S> {
    /// A Hugging Face folder.
    Checkpoint(Checkpoint<S>),
    /// A folder made by `globe convert`.
    Packed(Packed<S>),
    /// Noise of this many bits, for measuring speed without a model.
    Random(Noise),
}

/// Weights that stand for nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    /// Format of the language model.
    pub(crate) text: globe_format::WeightFormat,
    /// Format of the tower.
    pub(crate) vision: globe_format::WeightFormat,
}

impl Noise {
    /// Formats of `bits` per weight of the language model and `vision_bits` of the tower.
    ///
    /// # Errors
    /// [`Error::Config`] for bits that no format has.
    pub(crate) fn new(bits: u32, vision_bits: u32) -> Result<Self> {
        let format = |bits: u32| {
            let reason = format!("{bits} bits per weight; use 4, 8, 16 or 32");
            format_of_bits(bits).ok_or(Error::Config { field: "bits".into(), reason })
        };
        Ok(Self { text: format(bits)?, vision: format(vision_bits)? })
    }

    /// Words that look random to a cache and a branch predictor. Their high bits are cleared where
    /// a float could become infinite.
    fn words(bytes: usize, format: WeightFormat) -> Vec<u8> {
        let mask = match format {
            WeightFormat::Q4 | WeightFormat::Q8 => u32::MAX,
            WeightFormat::F16 => 0x83ff_83ff,
            WeightFormat::Bf16 | WeightFormat::F32 => 0x8000_ffff,
        };
        let mut state = 1u32;
        let mut words = Vec::with_capacity(bytes);
        for _ in 0..bytes / 4 {
            // Numerical Recipes' linear congruential generator.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            words.extend_from_slice(&((state ^ state >> 16) & mask).to_le_bytes());
        }
        words
    }
}

/// Named tensors of a model, each made of one or more tensors of a checkpoint.
pub(crate) struct Weights<'a, S> {
    store: &'a Store<S>,
    specs: BTreeMap<String, TensorSpec>,
    compute: &'a Compute,
    dense: bool,
    /// Whatever is stored, matrices are f32.
    trained: bool,
    /// Where packed tensors go.
    rooms: RefCell<Rooms<'a>>,
}

/// Room on the device for the tensors of a packed folder, made a layer at a time: asked for one by one, rooms keep
/// the driver waiting; asked for all at once, they do so before it has anything to do.
#[derive(Default)]
struct Rooms<'a> {
    layer: String,
    /// The first room of each tensor: every part has one of words, and one of scales if it has any.
    first: BTreeMap<String, usize>,
    uploads: Option<Uploads<'a>>,
}

impl<'a> Rooms<'a> {
    /// Rooms of the tensors of `layer`, in place of those of the layer before, which have all been filled.
    fn of<S: Source>(
        layer: &str,
        packed: &Packed<S>,
        specs: &BTreeMap<String, TensorSpec>,
        compute: &'a Compute,
    ) -> Result<Self> {
        let (mut first, mut sizes) = (BTreeMap::new(), Vec::new());
        for name in specs.keys().filter(|name| layer_of(name) == layer) {
            first.insert(name.clone(), sizes.len());
            let extents = packed.tensor(name)?.parts.iter().flat_map(extents);
            sizes.extend(extents.map(|extent| extent.size as usize));
        }
        let uploads = Some(Uploads::begin(&sizes, compute)?);
        Ok(Self { layer: layer.into(), first, uploads })
    }

    fn uploads(&mut self) -> &mut Uploads<'a> {
        self.uploads.as_mut().expect("rooms are looked up before they are filled")
    }
}

/// The name up to the number of a layer or block; all of it, if there is none.
fn layer_of(name: &str) -> &str {
    let mut end = 0;
    for word in name.split('.') {
        end += word.len();
        if !word.is_empty() && word.bytes().all(|c| c.is_ascii_digit()) {
            return &name[..end];
        }
        end += 1;
    }
    name
}

/// Where a part lies.
fn extents(part: &Part) -> impl Iterator<Item = Extent> {
    [Some(part.words), part.scales].into_iter().flatten()
}

impl<'a, S: Source> Weights<'a, S> {
    /// All tensors. Names and shapes must have been checked before.
    pub(crate) fn new(
        store: &'a Store<S>,
        specs: Vec<TensorSpec>,
        compute: &'a Compute,
        precision: Precision,
    ) -> Self {
        let specs = specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        let dense = precision == Precision::Reference || !compute.is_gpu();
        let trained = precision == Precision::Trained;
        Self { store, specs, compute, dense, trained, rooms: RefCell::default() }
    }

    /// Whether the model has this tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.specs.contains_key(name)
    }

    /// Whether matrices are packed for the fast kernels.
    pub(crate) fn is_packed(&self) -> bool {
        !self.dense
    }

    /// Which kernels suit the device.
    pub(crate) fn variant(&self) -> Variant {
        self.compute.variant()
    }

    /// A vector: a norm or a bias.
    pub(crate) async fn vector(&self, name: &str) -> Result<Tensor<1>> {
        let spec = self.spec(name);
        let values = match self.store {
            Store::Checkpoint(checkpoint) => read_rows(checkpoint, spec, 0, spec.rows).await?,
            Store::Packed(packed) if self.dense => unpacked(packed, packed.tensor(name)?).await?,
            Store::Packed(packed) => return self.packed_vector(packed, packed.tensor(name)?).await,
            Store::Random(_) => vec![1.0; spec.rows],
        };
        self.upload(values, [spec.rows])
    }

    /// A matrix.
    pub(crate) async fn matrix(&self, name: &str) -> Result<Matrix> {
        let spec = self.spec(name);
        match self.store {
            _ if self.dense => self.dense(spec).await,
            Store::Checkpoint(checkpoint) => self.pack(checkpoint, spec).await,
            Store::Packed(packed) => self.packed(packed, packed.tensor(name)?).await,
            Store::Random(noise) => self.noise(*noise, spec),
        }
    }

    async fn dense(&self, spec: &TensorSpec) -> Result<Matrix> {
        let size_bytes = 4 * spec.rows as u64 * spec.cols as u64;
        let limit_bytes = self.compute.max_binding_bytes;
        if size_bytes > limit_bytes {
            let name = spec.name.clone();
            return Err(Error::TensorTooLarge { name, size_bytes, limit_bytes });
        }
        let values = match self.store {
            Store::Checkpoint(checkpoint) => read_rows(checkpoint, spec, 0, spec.rows).await?,
            Store::Packed(packed) => unpacked(packed, packed.tensor(&spec.name)?).await?,
            Store::Random(_) => vec![1e-3; spec.rows * spec.cols],
        };
        Ok(Matrix::Dense(Box::new(self.upload(values, [spec.rows, spec.cols])?)))
    }

    /// Moves one tensor to the device before the next is read.
    fn upload<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Result<Tensor<D>> {
        let tensor = tensor_f32(values, shape, &self.compute.device);
        flush(&self.compute.device)?;
        Ok(tensor)
    }

    /// A matrix as a packed folder holds it.
    async fn packed(&self, packed: &Packed<S>, tensor: &PackedTensor) -> Result<Matrix> {
        let format = kernel_format(tensor.format);
        let mut matrix = PackedMatrix::new(format, tensor.cols(), self.compute);
        let mut room = self.first_room(packed, tensor)?;
        for part in &tensor.parts {
            let next = self.fill(packed, part, room).await?;
            matrix.push_rooms(part.rows, self.rooms.borrow_mut().uploads(), room)?;
            room = next;
        }
        Ok(Matrix::Packed(Box::new(matrix)))
    }

    /// A vector as a packed folder holds it.
    async fn packed_vector(&self, packed: &Packed<S>, tensor: &PackedTensor) -> Result<Tensor<1>> {
        let mut values = Vec::with_capacity(1);
        let mut room = self.first_room(packed, tensor)?;
        for part in &tensor.parts {
            let next = self.fill(packed, part, room).await?;
            values.push(self.rooms.borrow_mut().uploads().values(room)?);
            room = next;
        }
        match values.len() {
            1 => Ok(values.remove(0)),
            _ => Ok(Tensor::cat(values, 0)),
        }
    }

    /// Where the rooms of a tensor begin.
    fn first_room(&self, packed: &Packed<S>, tensor: &PackedTensor) -> Result<usize> {
        let mut rooms = self.rooms.borrow_mut();
        let layer = layer_of(&tensor.name);
        if rooms.layer != layer {
            *rooms = Rooms::of(layer, packed, &self.specs, self.compute)?;
        }
        Ok(rooms.first[&tensor.name])
    }

    /// Reads a part into its rooms, and says which room is the next.
    async fn fill(&self, packed: &Packed<S>, part: &Part, mut room: usize) -> Result<usize> {
        for extent in extents(part) {
            for piece in pieces(extent) {
                let bytes = packed.read(piece).await?;
                self.rooms.borrow_mut().uploads().write(room, &bytes)?;
            }
            room += 1;
        }
        Ok(room)
    }

    /// A matrix put together from a checkpoint.
    async fn pack(&self, checkpoint: &Checkpoint<S>, spec: &TensorSpec) -> Result<Matrix> {
        let format = match self.trained {
            true => WeightFormat::F32,
            false => stored_format(checkpoint, spec),
        };
        let row_bytes = PackedMatrix::row_bytes(format, spec.cols);
        let is_copy = stored_as(checkpoint, spec, format);
        let part_rows = self.part_rows(row_bytes);
        let chunk_rows = (CHUNK_VALUES / spec.cols).max(1);
        let mut matrix = PackedMatrix::new(format, spec.cols, self.compute);
        let mut first = 0;
        while first < spec.rows {
            let end = spec.rows.min(first + part_rows);
            let mut words = Vec::with_capacity((end - first) * row_bytes);
            while first < end {
                let rows = chunk_rows.min(end - first);
                if is_copy {
                    copy_rows(checkpoint, spec, first..first + rows, row_bytes, &mut words).await?;
                } else {
                    let values = read_rows(checkpoint, spec, first, rows).await?;
                    pack(&values, spec.cols, row_bytes, &mut words);
                }
                first += rows;
            }
            let rows = words.len() / row_bytes;
            matrix.push_part(rows, words.into(), Cow::Borrowed(&[]), self.compute)?;
        }
        Ok(Matrix::Packed(Box::new(matrix)))
    }

    /// A matrix of noise.
    fn noise(&self, noise: Noise, spec: &TensorSpec) -> Result<Matrix> {
        let format = kernel_format(spec.format(noise.text, noise.vision));
        let row_bytes = PackedMatrix::row_bytes(format, spec.cols);
        let scale_bytes = PackedMatrix::row_scale_bytes(format, spec.cols);
        // Small enough that activations stay finite through any number of layers.
        let scale = 0x1419u16.to_le_bytes(); // 0.001 in f16
        let mut matrix = PackedMatrix::new(format, spec.cols, self.compute);
        let part_rows = self.part_rows(row_bytes);
        for first in (0..spec.rows).step_by(part_rows) {
            let rows = part_rows.min(spec.rows - first);
            let words = Noise::words(rows * row_bytes, format);
            let scales = scale.repeat(rows * scale_bytes / 2);
            matrix.push_part(rows, words.into(), scales.into(), self.compute)?;
        }
        Ok(Matrix::Packed(Box::new(matrix)))
    }

    /// Rows that one binding holds.
    fn part_rows(&self, row_bytes: usize) -> usize {
        part_rows(self.compute.max_binding_bytes, row_bytes)
    }

    /// Bytes of all of them on the device.
    pub(crate) fn plan(&self) -> WeightPlan {
        match self.trained {
            true => WeightPlan::trained(self.specs.values(), self.dense),
            false => WeightPlan::of_store(self.store, self.specs.values(), self.dense),
        }
    }

    fn spec(&self, name: &str) -> &TensorSpec {
        self.specs.get(name).expect("a model asks only for the tensors that it lists")
    }
}

/// Rows that one part holds on an adapter that binds `limit_bytes`. Pairs stay together for SwiGLU.
pub(crate) fn part_rows(limit_bytes: u64, row_bytes: usize) -> usize {
    (limit_bytes.min(PART_BYTES) as usize / row_bytes / 2 * 2).max(2)
}

/// The narrowest format that holds every source exactly.
fn stored_format<S: Source>(checkpoint: &Checkpoint<S>, spec: &TensorSpec) -> WeightFormat {
    let halves = [WeightFormat::Bf16, WeightFormat::F16].into_iter();
    let mut suited = halves.filter(|format| stored_as(checkpoint, spec, *format));
    suited.next().unwrap_or(WeightFormat::F32)
}

/// Whether every source has the type of the format, so that its rows only need to be copied.
fn stored_as<S: Source>(
    checkpoint: &Checkpoint<S>,
    spec: &TensorSpec,
    format: WeightFormat,
) -> bool {
    let wanted = match format {
        WeightFormat::Bf16 => Dtype::Bf16,
        WeightFormat::F16 => Dtype::F16,
        WeightFormat::F32 => Dtype::F32,
        WeightFormat::Q4 | WeightFormat::Q8 => return false,
    };
    let dtype = |name: &str| checkpoint.info(name).map(|info| info.dtype);
    spec.sources.iter().all(|source| dtype(&source.name) == Some(wanted))
}

/// Appends rows of a tensor as they are stored, each filled up with zeros to `row_bytes`.
async fn copy_rows<S: Source>(
    checkpoint: &Checkpoint<S>,
    spec: &TensorSpec,
    rows: Range<usize>,
    row_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    let start = out.len();
    out.resize(start + rows.len() * row_bytes, 0);
    for run in &runs(spec, rows.start, rows.len()) {
        let source = &spec.sources[run.source];
        let range = run.first * source.cols..(run.first + run.n) * source.cols;
        let bytes = checkpoint.read_finite_range(&source.name, range).await?;
        let stored = bytes.len() / run.n;
        for (i, row) in bytes.chunks_exact(stored).enumerate() {
            let at = start + (run.at + i * run.step) * row_bytes;
            out[at..at + stored].copy_from_slice(row);
        }
    }
    Ok(())
}

/// Bytes of a tensor on an adapter.
pub(crate) fn packed_bytes<S: Source>(checkpoint: &Checkpoint<S>, spec: &TensorSpec) -> u64 {
    if spec.class == Class::Vector {
        return 4 * spec.rows as u64;
    }
    let format = stored_format(checkpoint, spec);
    spec.rows as u64 * PackedMatrix::row_bytes(format, spec.cols) as u64
}

/// The kernels' name of a format.
pub(crate) fn kernel_format(format: globe_format::WeightFormat) -> WeightFormat {
    match format {
        globe_format::WeightFormat::Q4 => WeightFormat::Q4,
        globe_format::WeightFormat::Q8 => WeightFormat::Q8,
        globe_format::WeightFormat::F16 => WeightFormat::F16,
        globe_format::WeightFormat::F32 => WeightFormat::F32,
    }
}

/// An extent cut where the pieces of files end in which a page stores them (`PIECE_BYTES` in `web/ts/model/store.ts`), each
/// of which is looked up and compared as a whole.
fn pieces(extent: Extent) -> impl Iterator<Item = Extent> {
    const PIECE_BYTES: u64 = 4 << 20;
    let mut offset = extent.offset;
    std::iter::from_fn(move || {
        let end = extent.end().min((offset / PIECE_BYTES + 1) * PIECE_BYTES);
        let piece = Extent { offset, size: end - offset };
        offset = end;
        (piece.size > 0).then_some(piece)
    })
}

/// All values of a packed tensor, row-major.
async fn unpacked<S: Source>(packed: &Packed<S>, tensor: &PackedTensor) -> Result<Vec<f32>> {
    let words = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|w| u32::from_le_bytes(*w)).collect();
    let mut values = Vec::new();
    for part in &tensor.parts {
        let stored: Vec<u32> = words(&packed.read(part.words).await?);
        if tensor.is_vector() {
            values.extend(stored[..part.rows].iter().map(|word| f32::from_bits(*word)));
            continue;
        }
        let scales: Vec<u16> = match part.scales {
            None => Vec::new(),
            Some(scales) => {
                let bytes = packed.read(scales).await?;
                bytes.as_chunks().0.iter().map(|half| u16::from_le_bytes(*half)).collect()
            }
        };
        let (rows, cols, format) = (part.rows, tensor.cols(), tensor.format);
        let part = dequantize(format, &stored, &scales, rows, cols);
        values.extend(part.expect("the manifest gives every part its size"));
    }
    Ok(values)
}

/// Some rows of a tensor, put together from its sources: `[rows, cols]`.
async fn read_rows<S: Source>(
    checkpoint: &Checkpoint<S>,
    spec: &TensorSpec,
    first: usize,
    rows: usize,
) -> Result<Vec<f32>> {
    let read = async |run: &Run| -> Result<Vec<f32>> {
        let source = &spec.sources[run.source];
        let range = run.first * source.cols..(run.first + run.n) * source.cols;
        Ok(checkpoint.read_f32_range(&source.name, range).await?)
    };
    let runs = runs(spec, first, rows);
    if let [run] = &runs[..]
        && run.step == 1
        && run.n == rows
        && spec.sources[run.source].cols == spec.cols
    {
        return read(run).await; // the common case, without a copy
    }
    let mut values = vec![0.0; rows * spec.cols];
    for run in &runs {
        let cols = spec.sources[run.source].cols;
        for (i, row) in read(run).await?.chunks_exact(cols).enumerate() {
            let at = (run.at + i * run.step) * spec.cols;
            values[at..at + cols].copy_from_slice(row);
        }
    }
    Ok(values)
}

/// Consecutive rows of one source and where they go.
#[derive(Debug, PartialEq)]
struct Run {
    source: usize,
    first: usize,
    n: usize,
    at: usize,
    step: usize,
}

/// The rows `first .. first + rows` of a tensor, gathered by source. Rows of zeros are in none.
fn runs(spec: &TensorSpec, first: usize, rows: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for at in 0..rows {
        let Some((source, row)) = spec.source_row(first + at) else { continue };
        match runs.iter_mut().find(|run| run.source == source) {
            Some(run) => {
                if run.n == 1 {
                    run.step = at - run.at;
                }
                run.n += 1;
            }
            None => runs.push(Run { source, first: row, n: 1, at, step: 1 }),
        }
    }
    runs
}

/// Appends rows as f32 blocks, for sources of several types and for weights that are trained.
fn pack(values: &[f32], cols: usize, row_bytes: usize, out: &mut Vec<u8>) {
    for row in values.chunks_exact(cols) {
        let end = out.len() + row_bytes;
        out.extend(row.iter().flat_map(|x| x.to_le_bytes()));
        out.resize(end, 0);
    }
}

#[cfg(test)]
mod tests {
    use globe_format::packed::SourceRows;

    use super::*;

    #[test]
    fn pieces_cover_an_extent_and_end_where_those_of_files_do() {
        let mebi = 1u64 << 20;
        let cut = |offset, size| pieces(Extent { offset, size }).collect::<Vec<_>>();
        let of = |pairs: &[(u64, u64)]| {
            let extents = pairs.iter().map(|&(offset, size)| Extent { offset, size });
            extents.collect::<Vec<_>>()
        };
        assert_eq!(cut(3 * mebi, 0), []);
        assert_eq!(cut(3 * mebi, mebi), of(&[(3 * mebi, mebi)]));
        let cut = cut(3 * mebi, 6 * mebi);
        assert_eq!(cut, of(&[(3 * mebi, mebi), (4 * mebi, 4 * mebi), (8 * mebi, mebi)]));
    }

    #[test]
    fn a_layer_ends_at_its_number() {
        assert_eq!(layer_of("model.layers.10.mlp.down_proj.weight"), "model.layers.10");
        assert_eq!(layer_of("visual.blocks.1.norm1.weight"), "visual.blocks.1");
        assert_eq!(layer_of("visual.merger.mlp.2.bias"), "visual.merger.mlp.2");
        assert_eq!(layer_of("model.embed_tokens.weight"), "model.embed_tokens.weight");
        assert_eq!(layer_of("norm1.7"), "norm1.7");
        assert_eq!(layer_of(""), "");
    }

    fn source(name: &str, rows: usize, padded_rows: usize) -> SourceRows {
        SourceRows { name: name.into(), rows, cols: 2, padded_rows }
    }

    #[test]
    fn alternating_rows_are_two_runs_with_a_step() {
        let sources = vec![source("gate", 3, 4), source("up", 3, 4)];
        let spec = TensorSpec::interleave("gate_up", Class::Text, sources);
        let run = |source, first, n, at| Run { source, first, n, at, step: 2 };
        assert_eq!(runs(&spec, 0, 8), [run(0, 0, 3, 0), run(1, 0, 3, 1)]);
        assert_eq!(runs(&spec, 2, 4), [run(0, 1, 2, 0), run(1, 1, 2, 1)]);
    }

    #[test]
    fn stacked_rows_follow_each_other() {
        let sources = vec![source("q", 2, 2), source("k", 1, 1)];
        let spec = TensorSpec::stack("qk", Class::Text, sources);
        let run = |source, first, n, at| Run { source, first, n, at, step: 1 };
        assert_eq!(runs(&spec, 0, 3), [run(0, 0, 2, 0), run(1, 0, 1, 2)]);
        assert_eq!(runs(&spec, 1, 1), [run(0, 1, 1, 0)]);
    }
}
