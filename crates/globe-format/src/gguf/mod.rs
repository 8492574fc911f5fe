//! GGUF, the file format of llama.cpp: metadata, and tensors read as `f32`.

mod blocks;
mod header;
mod qwen2_5_vl;
mod small_files;

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

pub use self::{blocks::GgufType, header::GgufValue, qwen2_5_vl::GgufModel};

use self::header::{Header, Stop, StoredTensor};
use crate::{
    error::{Error, Result},
    names,
    source::{self, Files, Source},
};

/// Bytes of the head that are read first; most heads fit, as a vocabulary takes a few MiB.
const FIRST_READ_BYTES: u64 = 16 << 20;

/// Longer heads are damaged.
const MAX_HEAD_BYTES: u64 = 256 << 20;

/// Bytes converted per read.
const CHUNK_BYTES: u64 = 16 << 20;

/// An opened file, its tensors under the names that llama.cpp gives them.
#[derive(Debug)]
pub struct Gguf<S> {
    file: String,
    source: S,
    metadata: BTreeMap<String, GgufValue>,
    tensors: BTreeMap<String, StoredTensor>,
}

impl<S: Source> Gguf<S> {
    /// Opens one file of a folder.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Gguf`] naming the field, [`Error::GgufTypes`] listing tensors
    /// of a type that is not read.
    pub async fn open<F: Files<Source = S>>(files: &F, file: &str) -> Result<Self> {
        let source = source::open(files, file).await?;
        let source = source.ok_or_else(|| Error::NotFound { file: file.into() })?;
        Self::from_source(file, source).await
    }

    /// Parses the head of a file; `file` is how errors call it.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub async fn from_source(file: &str, source: S) -> Result<Self> {
        let size = source.size_bytes();
        let mut n = FIRST_READ_BYTES.min(size);
        loop {
            let head = source::read(&source, file, 0..n).await?;
            match header::parse(file, &head, size) {
                Ok(Header { metadata, tensors }) => {
                    drop(head);
                    return Ok(Self { file: file.into(), source, metadata, tensors });
                }
                Err(Stop::Bad(error)) => return Err(error),
                Err(Stop::NeedMore) if n < size.min(MAX_HEAD_BYTES) => n = (2 * n).min(size),
                Err(Stop::NeedMore) => {
                    let reason =
                        format!("the head does not end in {n} bytes; the file is truncated");
                    return Err(Error::Gguf { file: file.into(), field: "header".into(), reason });
                }
            }
        }
    }

    /// Name of the file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Metadata by key.
    pub fn metadata(&self) -> &BTreeMap<String, GgufValue> {
        &self.metadata
    }

    /// All tensor names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Type and dimensions of a tensor, outermost first.
    pub fn tensor(&self, name: &str) -> Option<(GgufType, &[usize])> {
        self.tensors.get(name).map(|tensor| (tensor.kind, tensor.shape.as_slice()))
    }

    /// Some elements of a tensor in row-major order, every one finite.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::ElementRange`], [`Error::NotFinite`], or an error of the
    /// source.
    pub async fn read_range(&self, name: &str, elements: Range<usize>) -> Result<Vec<f32>> {
        let tensor = self.tensors.get(name).ok_or_else(|| Error::UnknownTensor {
            name: name.into(),
            nearest: names::nearest(name, self.names()),
        })?;
        let n_elements = tensor.shape.iter().product();
        let Range { start, end } = elements;
        if start > end || end > n_elements {
            let (file, tensor) = (self.file.clone(), name.into());
            return Err(Error::ElementRange { file, tensor, start, end, n_elements });
        }
        let block = tensor.kind.block_len();
        let (first, last) = (start / block, end.div_ceil(block));
        let mut out = Vec::new();
        out.try_reserve_exact((last - first) * block).map_err(|_| Error::OutOfMemory {
            tensor: name.into(),
            bytes: 4 * ((last - first) * block) as u64,
        })?;
        self.append_blocks(tensor, first as u64..last as u64, &mut out).await?;
        out.truncate(end - first * block);
        out.drain(..start - first * block);
        match out.iter().position(|x| !x.is_finite()) {
            None => Ok(out),
            Some(i) => Err(Error::NotFinite {
                file: self.file.clone(),
                tensor: name.into(),
                at: start + i,
                value: out[i],
            }),
        }
    }

    async fn append_blocks(
        &self,
        tensor: &StoredTensor,
        blocks: Range<u64>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let size = tensor.kind.block_bytes() as u64;
        let step = CHUNK_BYTES / size;
        let mut at = blocks.start;
        while at < blocks.end {
            let next = blocks.end.min(at + step);
            let start = tensor.bytes.start;
            let range = start + at * size..start + next * size;
            let bytes: Cow<'_, [u8]> = source::read(&self.source, &self.file, range).await?;
            blocks::append_f32(tensor.kind, &bytes, out);
            at = next;
        }
        Ok(())
    }

    fn fail(&self, field: &str, reason: impl Into<String>) -> Error {
        Error::Gguf { file: self.file.clone(), field: field.into(), reason: reason.into() }
    }

    /// A metadata value that must be there.
    fn value(&self, key: &str) -> Result<&GgufValue> {
        self.metadata.get(key).ok_or_else(|| self.fail(key, "absent"))
    }

    /// A whole number, or `None` if the key is absent.
    fn size_of(&self, key: &str) -> Result<Option<u64>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Unsigned(n)) => Ok(Some(*n)),
            Some(other) => Err(self.fail(key, format!("{other:?}, expected a whole number"))),
        }
    }

    /// A whole number that must be there.
    fn size(&self, key: &str) -> Result<u64> {
        self.size_of(key)?.ok_or_else(|| self.fail(key, "absent"))
    }

    /// A number, or `default` if the key is absent.
    fn float_or(&self, key: &str, default: f64) -> Result<f64> {
        match self.metadata.get(key) {
            None => Ok(default),
            Some(GgufValue::Float(x)) if x.is_finite() => Ok(*x),
            Some(GgufValue::Unsigned(n)) => Ok(*n as f64),
            Some(other) => Err(self.fail(key, format!("{other:?}, expected a number"))),
        }
    }

    /// A text that must be there.
    fn text(&self, key: &str) -> Result<&str> {
        match self.value(key)? {
            GgufValue::Text(text) => Ok(text),
            other => Err(self.fail(key, format!("{other:?}, expected text"))),
        }
    }

    /// An array that must be there.
    fn array(&self, key: &str) -> Result<&[GgufValue]> {
        match self.value(key)? {
            GgufValue::Array(values) => Ok(values),
            _ => Err(self.fail(key, "expected an array")),
        }
    }

    /// An array of texts that must be there.
    fn texts(&self, key: &str) -> Result<Vec<&str>> {
        self.array(key)?
            .iter()
            .map(|value| match value {
                GgufValue::Text(text) => Ok(text.as_str()),
                _ => Err(self.fail(key, "expected an array of texts")),
            })
            .collect()
    }
}
