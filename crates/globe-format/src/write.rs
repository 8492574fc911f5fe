//! Writes safetensors files, byte for byte the same for the same tensors.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use serde::Serialize;

use crate::{
    dtype::Dtype,
    error::{Error, Result},
    header::METADATA,
};

/// Data starts at a multiple of this, so that a memory map can be cast in place.
const ALIGN_BYTES: usize = 8;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct OutTensor<'a> {
    /// Name, unique in the file.
    pub name: String,
    /// Element type of `data`.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Little-endian elements in row-major order.
    pub data: Cow<'a, [u8]>,
}

impl OutTensor<'static> {
    /// An `F32` tensor of `values`.
    pub fn f32(name: impl Into<String>, shape: &[usize], values: &[f32]) -> Self {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.into(), dtype: Dtype::F32, shape: shape.into(), data: Cow::Owned(data) }
    }
}

/// What a header says about a tensor, apart from its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Described<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub size_bytes: u64,
}

impl Described<'_> {
    /// Wider element types come first, so that every tensor is aligned; names are sorted among
    /// equals.
    pub(crate) fn order(&self) -> (Reverse<usize>, &str) {
        (Reverse(self.dtype.size_bytes()), self.name)
    }
}

#[derive(Serialize)]
struct Entry<'a> {
    dtype: &'a str,
    shape: &'a [usize],
    data_offsets: (u64, u64),
}

/// The bytes of a file with `tensors` and string `metadata`.
///
/// Wider element types come first, so that every tensor is aligned, and names are sorted among
/// equals. The order of `tensors` does not matter.
pub fn write_safetensors(
    tensors: &[OutTensor<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut sorted: Vec<_> = tensors.iter().map(|tensor| (described(tensor), tensor)).collect();
    sorted.sort_by(|(a, _), (b, _)| a.order().cmp(&b.order()));
    let described: Vec<_> = sorted.iter().map(|(described, _)| *described).collect();
    let mut file = header(&described, metadata)?;
    for (_, tensor) in sorted {
        file.extend_from_slice(&tensor.data);
    }
    Ok(file)
}

/// The same for `F32` tensors given by name, shape and values, without another copy of them.
///
/// # Errors
/// [`Error::Write`] for a tensor that does not fill its shape, or a name that stands twice.
pub fn write_f32_safetensors(
    tensors: &[(&str, &[usize], &[f32])],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut sorted = tensors.to_vec();
    sorted.sort_by_key(|(name, _, _)| *name);
    let described: Vec<_> = sorted
        .iter()
        .map(|&(name, shape, values)| {
            let size_bytes = size_of_val(values) as u64;
            Described { name, dtype: Dtype::F32, shape, size_bytes }
        })
        .collect();
    let mut file = header(&described, metadata)?;
    let n: usize = sorted.iter().map(|(_, _, values)| values.len()).sum();
    file.reserve_exact(size_of::<f32>() * n);
    for (_, _, values) in sorted {
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    Ok(file)
}

/// The beginning of a file of `F32` tensors, whose values are to follow in the order given.
///
/// # Errors
/// [`Error::Write`] for a name that stands twice.
pub fn f32_safetensors_header<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let describe = |(name, shape): (&'a str, &'a [usize])| {
        let n: u64 = shape.iter().map(|&dim| dim as u64).product();
        Described { name, dtype: Dtype::F32, shape, size_bytes: size_of::<f32>() as u64 * n }
    };
    header(&tensors.into_iter().map(describe).collect::<Vec<_>>(), metadata)
}

fn described<'a>(tensor: &'a OutTensor<'_>) -> Described<'a> {
    let OutTensor { name, dtype, shape, data } = tensor;
    Described { name, dtype: *dtype, shape, size_bytes: data.len() as u64 }
}

/// Length field and padded JSON, entries in the order of the data.
pub(crate) fn header(
    tensors: &[Described<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut entries = Vec::new();
    if !metadata.is_empty() {
        entries.push(member(METADATA, metadata)?);
    }
    let (mut names, mut end) = (BTreeSet::new(), 0);
    for tensor in tensors {
        check_size(tensor)?;
        if tensor.name == METADATA || !names.insert(tensor.name) {
            return Err(fail(tensor.name, "the name is reserved or stands twice".into()));
        }
        let data_offsets = (end, end + tensor.size_bytes);
        end = data_offsets.1;
        let entry = Entry { dtype: tensor.dtype.name(), shape: tensor.shape, data_offsets };
        entries.push(member(tensor.name, &entry)?);
    }
    let mut json = format!("{{{}}}", entries.join(",")).into_bytes();
    json.resize(json.len().next_multiple_of(ALIGN_BYTES), b' ');
    Ok([&(json.len() as u64).to_le_bytes(), json.as_slice()].concat())
}

/// `"name":value`. Written by hand, because whether a JSON map sorts depends on crate features.
fn member(name: &str, value: &impl Serialize) -> Result<String> {
    let json = |text: serde_json::Result<String>| text.map_err(|e| fail(name, e.to_string()));
    Ok(format!("{}:{}", json(serde_json::to_string(name))?, json(serde_json::to_string(value))?))
}

fn fail(tensor: &str, reason: String) -> Error {
    Error::Write { tensor: tensor.into(), reason }
}

fn check_size(tensor: &Described<'_>) -> Result<()> {
    let Described { name, dtype, shape, size_bytes } = *tensor;
    let element = dtype.size_bytes() as u64;
    let size = shape.iter().try_fold(element, |size, &dim| size.checked_mul(dim as u64));
    if size == Some(size_bytes) {
        return Ok(());
    }
    Err(fail(name, format!("{dtype} {shape:?} does not fill {size_bytes} bytes")))
}
