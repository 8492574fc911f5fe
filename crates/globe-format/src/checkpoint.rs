//! A checkpoint: the tensors of one safetensors file or of the shards an index lists.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
};

use crate::{
    convert::{append_f32, check_finite},
    dtype::Dtype,
    error::{Error, Result},
    header::{Header, StoredTensor, read_header},
    index::{ShardMap, parse_index},
    names::{self, Present},
    source::{self, Files, Source, read_file},
};

/// Weights in one file.
pub const SINGLE_FILE: &str = "model.safetensors";

/// Index of weights in several files.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Bytes converted per read: bounds the raw copy a browser holds beside the result.
const CHUNK_BYTES: usize = 16 << 20;

/// What a header says about one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, after [`Checkpoint::rename`].
    pub name: String,
    /// Name in the file.
    pub stored_name: String,
    /// Element type in the file.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// File that holds it.
    pub file: String,
}

impl TensorInfo {
    /// Bytes in the file.
    pub fn size_bytes(&self) -> u64 {
        self.n_elements() as u64 * self.dtype.size_bytes() as u64
    }

    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        // The header check multiplied the same numbers in u64 and made the result fit a usize; a
        // usize product could overflow on wasm32 before it meets a dimension of zero.
        self.shape.iter().map(|&dim| dim as u64).product::<u64>() as usize
    }

    fn label(&self) -> String {
        match self.name == self.stored_name {
            true => self.name.clone(),
            false => format!("{} (stored as {})", self.name, self.stored_name),
        }
    }
}

/// Totals for one element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DtypeSummary {
    /// Element type.
    pub dtype: Dtype,
    /// Tensors of this type.
    pub n_tensors: usize,
    /// Their elements.
    pub n_elements: u64,
    /// Their bytes.
    pub size_bytes: u64,
}

#[derive(Debug)]
struct Tensor {
    info: TensorInfo,
    file_idx: usize,
    bytes: Range<u64>,
}

/// Checked tensors by name. Opening reads headers only.
#[derive(Debug)]
pub struct Checkpoint<S> {
    files: Vec<S>,
    tensors: BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
}

impl<S: Source> Checkpoint<S> {
    /// Opens `model.safetensors`, or the shards of `model.safetensors.index.json`.
    /// Where a folder has both, the single file is used.
    pub async fn open<F: Files<Source = S>>(files: &F) -> Result<Self> {
        if let Some(source) = source::open(files, SINGLE_FILE).await? {
            return Self::from_source(SINGLE_FILE, source).await;
        }
        let json = read_file(files, INDEX_FILE).await?.ok_or(Error::NoWeights)?;
        Self::open_shards(files, parse_index(INDEX_FILE, &json)?).await
    }

    /// Opens one named file, such as an adapter.
    pub async fn open_file<F: Files<Source = S>>(files: &F, file: &str) -> Result<Self> {
        let source = source::open(files, file).await?;
        let source = source.ok_or_else(|| Error::NotFound { file: file.into() })?;
        Self::from_source(file, source).await
    }

    /// A checkpoint of one file; `file` is how errors call it.
    pub async fn from_source(file: &str, source: S) -> Result<Self> {
        let header = read_header(file, &source).await?;
        let mut checkpoint =
            Self { files: Vec::new(), tensors: BTreeMap::new(), metadata: BTreeMap::new() };
        checkpoint.add(file, source, header);
        Ok(checkpoint)
    }

    async fn open_shards<F: Files<Source = S>>(files: &F, shards: ShardMap) -> Result<Self> {
        let (mut opened, mut missing) = (Vec::new(), Vec::new());
        for (file, listed) in shards {
            match source::open(files, &file).await? {
                Some(source) => opened.push((file, listed, source)),
                None => missing.push(file),
            }
        }
        if !missing.is_empty() {
            return Err(Error::MissingShards { file: INDEX_FILE.into(), shards: missing });
        }
        let mut checkpoint =
            Self { files: Vec::new(), tensors: BTreeMap::new(), metadata: BTreeMap::new() };
        for (file, listed, source) in opened {
            let header = read_header(&file, &source).await?;
            check_listed(&file, listed, &header.tensors)?;
            checkpoint.add(&file, source, header);
        }
        Ok(checkpoint)
    }

    /// Takes over the tensors of one file. Names are distinct: those of one file are checked by
    /// its header, those of several by the index, which gives each name one file.
    fn add(&mut self, file: &str, source: S, header: Header) {
        let file_idx = self.files.len();
        self.files.push(source);
        self.metadata.extend(header.metadata);
        for StoredTensor { name, dtype, shape, bytes } in header.tensors {
            let stored_name = name.clone();
            let info = TensorInfo { name, stored_name, dtype, shape, file: file.into() };
            self.tensors.insert(info.name.clone(), Tensor { info, file_idx, bytes });
        }
    }

    /// Gives every tensor the name `map` returns for its stored name; `None` keeps it.
    pub fn rename(mut self, map: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut renamed: BTreeMap<String, Tensor> = BTreeMap::new();
        for mut tensor in std::mem::take(&mut self.tensors).into_values() {
            let stored = &tensor.info.stored_name;
            let name = map(stored).unwrap_or_else(|| stored.clone());
            if let Some(first) = renamed.get(&name) {
                let first = first.info.stored_name.clone();
                return Err(Error::RenameCollision { first, second: stored.clone(), name });
            }
            tensor.info.name.clone_from(&name);
            renamed.insert(name, tensor);
        }
        self.tensors = renamed;
        Ok(self)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// What is known about `name`.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|tensor| &tensor.info)
    }

    /// String metadata of the headers.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Bytes of all tensors.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.bytes.end - tensor.bytes.start).sum()
    }

    /// Totals per element type, in the order of [`Dtype`].
    pub fn dtype_summary(&self) -> Vec<DtypeSummary> {
        let mut rows: BTreeMap<Dtype, DtypeSummary> = BTreeMap::new();
        for Tensor { info, bytes, .. } in self.tensors.values() {
            let dtype = info.dtype;
            let empty = DtypeSummary { dtype, n_tensors: 0, n_elements: 0, size_bytes: 0 };
            let row = rows.entry(dtype).or_insert(empty);
            row.n_tensors += 1;
            row.n_elements += info.n_elements() as u64;
            row.size_bytes += bytes.end - bytes.start;
        }
        rows.into_values().collect()
    }

    /// Checks that the checkpoint holds exactly the `expected` names and shapes. Names that
    /// `ignore` accepts may be present as well. One error lists all differences.
    pub fn check_names(
        &self,
        expected: &[(String, Vec<usize>)],
        ignore: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let present = self.tensors.iter().map(|(name, tensor)| {
            let info = &tensor.info;
            (name.as_str(), Present { shape: &info.shape, label: info.label() })
        });
        let report = names::compare(expected, &present.collect(), ignore);
        if report.is_empty() { Ok(()) } else { Err(Error::Names(Box::new(report))) }
    }

    /// All elements of `name` as `f32`, row-major: one host copy, every value finite.
    pub async fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        self.convert(tensor, 0..tensor.info.n_elements()).await
    }

    /// Some elements of `name`, for tensors too large for one host copy.
    pub async fn read_f32_range(&self, name: &str, elements: Range<usize>) -> Result<Vec<f32>> {
        self.convert(self.tensor_with(name, &elements)?, elements).await
    }

    /// The stored bytes of `name`, whatever its type: borrowed from a memory map, else owned.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], or an error of the source.
    pub async fn read_bytes(&self, name: &str) -> Result<Cow<'_, [u8]>> {
        let Tensor { info, file_idx, bytes } = self.tensor(name)?;
        source::read(&self.files[*file_idx], &info.file, bytes.clone()).await
    }

    /// Some of the stored bytes of `name`, counted from its first.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], or [`Error::Read`] for a range that leaves the tensor.
    pub async fn read_bytes_range(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let Tensor { info, file_idx, bytes } = self.tensor(name)?;
        let size = bytes.end - bytes.start;
        if range.start > range.end || range.end > size {
            let source = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("`{}` has {size} bytes", info.label()),
            );
            let (file, Range { start, end }) = (info.file.clone(), range);
            return Err(Error::Read { file, start, end, source });
        }
        let range = bytes.start + range.start..bytes.start + range.end;
        source::read(&self.files[*file_idx], &info.file, range).await
    }

    /// Some elements of `name` as they are stored, every value finite.
    ///
    /// # Errors
    /// As [`Checkpoint::read_f32_range`].
    pub async fn read_finite_range(
        &self,
        name: &str,
        elements: Range<usize>,
    ) -> Result<Cow<'_, [u8]>> {
        let info = &self.tensor_with(name, &elements)?.info;
        let (file, tensor, dtype) = (info.file.clone(), info.label(), info.dtype);
        if !dtype.converts_to_f32() {
            return Err(Error::NotConvertible { file, tensor, dtype });
        }
        let size = dtype.size_bytes() as u64;
        let range = elements.start as u64 * size..elements.end as u64 * size;
        let bytes = self.read_bytes_range(name, range).await?;
        check_finite(dtype, &bytes).map_err(|bad| {
            let at = elements.start + bad.at;
            Error::NotFinite { file, tensor, at, value: bad.value }
        })?;
        Ok(bytes)
    }

    /// A tensor that has these elements.
    fn tensor_with(&self, name: &str, elements: &Range<usize>) -> Result<&Tensor> {
        let tensor = self.tensor(name)?;
        let (&Range { start, end }, n_elements) = (elements, tensor.info.n_elements());
        if start > end || end > n_elements {
            let file = tensor.info.file.clone();
            return Err(Error::ElementRange { file, tensor: name.into(), start, end, n_elements });
        }
        Ok(tensor)
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| Error::UnknownTensor {
            name: name.into(),
            nearest: names::nearest(name, self.names()),
        })
    }

    /// Converts `elements`, a range inside the tensor, chunk by chunk.
    async fn convert(&self, tensor: &Tensor, elements: Range<usize>) -> Result<Vec<f32>> {
        let Tensor { info, file_idx, bytes } = tensor;
        let (file, name) = (info.file.clone(), info.label());
        if !info.dtype.converts_to_f32() {
            return Err(Error::NotConvertible { file, tensor: name, dtype: info.dtype });
        }
        let mut out = allocate(name.as_str(), elements.len())?;
        let size = info.dtype.size_bytes() as u64;
        let mut at = bytes.start + elements.start as u64 * size;
        let end = bytes.start + elements.end as u64 * size;
        while at < end {
            let next = end.min(at + CHUNK_BYTES as u64);
            let raw = source::read(&self.files[*file_idx], &info.file, at..next).await?;
            append_f32(info.dtype, &raw, &mut out).map_err(|bad| Error::NotFinite {
                file: file.clone(),
                tensor: name.clone(),
                at: elements.start + bad.at,
                value: bad.value,
            })?;
            at = next;
        }
        Ok(out)
    }
}

/// An empty vector for `n` elements; the header check bounds `n` by the size of the file.
fn allocate(tensor: &str, n: usize) -> Result<Vec<f32>> {
    let mut out = Vec::new();
    out.try_reserve_exact(n)
        .map_err(|_| Error::OutOfMemory { tensor: tensor.into(), bytes: 4 * n as u64 })?;
    Ok(out)
}

/// A shard must hold exactly the tensors the index places in it.
fn check_listed(file: &str, listed: Vec<String>, stored: &[StoredTensor]) -> Result<()> {
    let listed: BTreeSet<String> = listed.into_iter().collect();
    let stored: BTreeSet<String> = stored.iter().map(|tensor| tensor.name.clone()).collect();
    if listed == stored {
        return Ok(());
    }
    Err(Error::ShardMismatch {
        file: file.into(),
        absent: listed.difference(&stored).cloned().collect(),
        unlisted: stored.difference(&listed).cloned().collect(),
    })
}
