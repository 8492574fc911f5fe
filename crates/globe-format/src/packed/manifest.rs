//! `manifest.json`: what a packed folder holds, checked before anything is read by it.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    error::{Error, Result},
    quant::WeightFormat,
    source::is_plain_name,
};

/// Name of the manifest in its folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Journal of a conversion that is not finished.
pub const JOURNAL_FILE: &str = "manifest.json.partial";

/// Value of the field `format`.
pub const FORMAT_NAME: &str = "globe-packed";

/// The version that is read and written.
pub const VERSION: u32 = 1;

/// Every array of words or scales starts at a multiple of this in the virtual array.
pub const ALIGN_BYTES: u64 = 256;

/// Most bytes of words in one part: what every WebGPU adapter can bind at once.
pub const MAX_PART_BYTES: u64 = 128 << 20;

/// Everything known about a packed folder.
///
/// The data is one virtual array of bytes, cut into shards of `shard_bytes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT_NAME`].
    pub format: String,
    /// Always [`VERSION`].
    pub version: u32,
    /// `model_type` of the configuration.
    pub architecture: String,
    /// Bits of the language model's matrices: 4, 8, 16 or 32.
    pub bits: u32,
    /// Bits of the vision tower's matrices: 4, 8, 16 or 32.
    pub vision_bits: u32,
    /// What the weights were made from.
    pub source: Provenance,
    /// Size of every shard but the last.
    pub shard_bytes: u64,
    /// Size of the virtual array.
    pub total_bytes: u64,
    /// The shards in order.
    pub shards: Vec<FileEntry>,
    /// SHA-256 of the virtual array, lower-case hex.
    pub sha256: String,
    /// Small files copied from the checkpoint.
    pub files: Vec<FileEntry>,
    /// The tensors in the order of their bytes.
    pub tensors: Vec<PackedTensor>,
}

/// The files that a packed model was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Files with the weights.
    pub inputs: Vec<FileEntry>,
    /// Files of the adapter that was merged, empty without one.
    pub adapter: Vec<FileEntry>,
}

/// A file with its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Name in the folder.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
}

/// One packed tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedTensor {
    /// Name, as in its [`TensorSpec`](super::TensorSpec).
    pub name: String,
    /// How the values are stored. A vector is f32 without padding.
    pub format: WeightFormat,
    /// `[rows, cols]` of a matrix, `[n]` of a vector.
    pub shape: Vec<usize>,
    /// Consecutive rows, each part small enough for one binding.
    pub parts: Vec<Part>,
}

/// Consecutive rows of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// First row.
    pub first_row: usize,
    /// Number of rows.
    pub rows: usize,
    /// Where the words are.
    pub words: Extent,
    /// Where the scales are, for formats that have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scales: Option<Extent>,
}

/// Bytes of the virtual array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// First byte, a multiple of [`ALIGN_BYTES`].
    pub offset: u64,
    /// Number of bytes.
    pub size: u64,
}

impl Extent {
    /// One past the last byte.
    pub fn end(&self) -> u64 {
        self.offset + self.size
    }
}

impl PackedTensor {
    /// Rows of a matrix, elements of a vector.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// Columns; 1 for a vector.
    pub fn cols(&self) -> usize {
        self.shape.get(1).copied().unwrap_or(1)
    }

    /// True for `[n]`, stored as plain f32.
    pub fn is_vector(&self) -> bool {
        self.shape.len() == 1
    }

    /// Bytes of the words of one row.
    pub fn row_bytes(&self) -> u64 {
        match self.is_vector() {
            true => 4,
            false => 4 * self.format.words_per_row(self.cols()) as u64,
        }
    }

    /// Bytes of the scales of one row.
    pub fn row_scale_bytes(&self) -> u64 {
        match self.is_vector() {
            true => 0,
            false => 2 * self.format.scales_per_row(self.cols()) as u64,
        }
    }

    /// Bytes of words and scales.
    pub fn size_bytes(&self) -> u64 {
        self.rows() as u64 * (self.row_bytes() + self.row_scale_bytes())
    }

    /// Words and scales of every part, in the order of their bytes.
    pub(crate) fn extents(&self) -> impl Iterator<Item = Extent> {
        self.parts.iter().flat_map(|part| [Some(part.words), part.scales].into_iter().flatten())
    }
}

impl Serialize for WeightFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for WeightFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = Self::ALL.map(Self::name).join(", ");
        Self::from_name(&name)
            .ok_or_else(|| D::Error::custom(format!("unknown format `{name}`; known: {known}")))
    }
}

/// The format of matrices with this many bits, if there is one.
pub fn format_of_bits(bits: u32) -> Option<WeightFormat> {
    Some(match bits {
        4 => WeightFormat::Q4,
        8 => WeightFormat::Q8,
        16 => WeightFormat::F16,
        32 => WeightFormat::F32,
        _ => return None,
    })
}

/// What tells a manifest of another version from a damaged one.
#[derive(Deserialize)]
struct Kind {
    format: String,
    version: u32,
}

impl Manifest {
    /// Parses and checks a manifest; nothing in it needs to be checked again.
    ///
    /// # Errors
    /// [`Error::ManifestVersion`] for another version, else [`Error::Manifest`] naming the field.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let syntax = |error: serde_json::Error| fail("json", error.to_string());
        let kind: Kind = serde_json::from_slice(json).map_err(syntax)?;
        if kind.format != FORMAT_NAME {
            return Err(fail("format", format!("`{}`, expected `{FORMAT_NAME}`", kind.format)));
        }
        if kind.version != VERSION {
            return Err(Error::ManifestVersion { found: kind.version, supported: VERSION });
        }
        let manifest: Self = serde_json::from_slice(json).map_err(syntax)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The bytes of the file, the same for the same manifest.
    ///
    /// # Errors
    /// [`Error::Manifest`] if it cannot be written as JSON.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).map_err(|error| fail("json", error.to_string()));
        json.map(|mut json| {
            json.push(b'\n');
            json
        })
    }

    fn check(&self) -> Result<()> {
        for (field, bits) in [("bits", self.bits), ("vision_bits", self.vision_bits)] {
            if format_of_bits(bits).is_none() {
                return Err(fail(field, format!("{bits}, known are 4, 8, 16 and 32")));
            }
        }
        self.check_shards()?;
        check_digest("sha256", &self.sha256)?;
        check_entries("files", &self.files)?;
        let mut names = BTreeSet::new();
        for tensor in &self.tensors {
            if !names.insert(&tensor.name) {
                return Err(tensor_fail(tensor, "stands twice"));
            }
            check_tensor(tensor)?;
        }
        self.check_extents()
    }

    fn check_shards(&self) -> Result<()> {
        let shard = self.shard_bytes;
        if shard == 0 || !shard.is_multiple_of(ALIGN_BYTES) {
            let reason = format!("{shard} is not a positive multiple of {ALIGN_BYTES}");
            return Err(fail("shard_bytes", reason));
        }
        check_entries("shards", &self.shards)?;
        let (n, got) = (self.total_bytes.div_ceil(shard), self.shards.len() as u64);
        if n != got {
            let reason = format!("{got} for {} bytes, expected {n}", self.total_bytes);
            return Err(fail("shards", reason));
        }
        for (i, entry) in self.shards.iter().enumerate() {
            let expected = shard.min(self.total_bytes - i as u64 * shard);
            if entry.size != expected {
                let reason = format!("is {} bytes, expected {expected}", entry.size);
                return Err(fail(&format!("shards: `{}`", entry.name), reason));
            }
        }
        Ok(())
    }

    /// Arrays are aligned, in order, apart from each other and inside the whole.
    fn check_extents(&self) -> Result<()> {
        let mut end = 0_u64;
        for tensor in &self.tensors {
            for extent in tensor.extents() {
                if extent.offset != end.next_multiple_of(ALIGN_BYTES) {
                    let reason = format!(
                        "bytes at {} instead of {}: arrays overlap or leave a gap",
                        extent.offset,
                        end.next_multiple_of(ALIGN_BYTES)
                    );
                    return Err(tensor_fail(tensor, &reason));
                }
                end = extent.offset.checked_add(extent.size).ok_or_else(overflow)?;
                if end > self.total_bytes {
                    let reason = format!("ends at {end}, past the {} in all", self.total_bytes);
                    return Err(tensor_fail(tensor, &reason));
                }
            }
        }
        if end.next_multiple_of(ALIGN_BYTES) != self.total_bytes {
            let reason = format!("{}, but the tensors end at {end}", self.total_bytes);
            return Err(fail("total_bytes", reason));
        }
        Ok(())
    }
}

fn overflow() -> Error {
    fail("total_bytes", "more than a u64 holds".into())
}

/// Shape, format and parts of one tensor fit together.
fn check_tensor(tensor: &PackedTensor) -> Result<()> {
    let bad = |reason: &str| Err(tensor_fail(tensor, reason));
    if !matches!(tensor.shape.len(), 1 | 2) || tensor.shape.contains(&0) {
        return bad(&format!("shape {:?}, expected [n] or [rows, cols]", tensor.shape));
    }
    if tensor.is_vector() && tensor.format != WeightFormat::F32 {
        return bad(&format!("a vector as {}, expected f32", tensor.format));
    }
    let row_blocks = (tensor.cols() as u64).checked_mul(4 * 32);
    if row_blocks.and_then(|bytes| bytes.checked_mul(tensor.rows() as u64)).is_none() {
        return bad(&format!("shape {:?} overflows", tensor.shape));
    }
    let mut next_row = 0;
    for part in &tensor.parts {
        if part.first_row != next_row || part.rows == 0 || part.rows > tensor.rows() - next_row {
            let rows = format!("{} rows from {}", part.rows, part.first_row);
            return bad(&format!("a part of {rows} after {next_row} of {}", tensor.rows()));
        }
        next_row += part.rows;
        check_part(tensor, part)?;
    }
    match next_row == tensor.rows() {
        true => Ok(()),
        false => bad(&format!("its parts hold {next_row} of {} rows", tensor.rows())),
    }
}

fn check_part(tensor: &PackedTensor, part: &Part) -> Result<()> {
    let size = part.rows as u64 * tensor.row_bytes();
    let scales = match part.rows as u64 * tensor.row_scale_bytes() {
        0 => None,
        size => Some(size),
    };
    if part.words.size != size {
        let reason = format!("words of {} bytes, expected {size}", part.words.size);
        return Err(tensor_fail(tensor, &reason));
    }
    if size > MAX_PART_BYTES && part.rows > 1 {
        let reason =
            format!("a part of {size} bytes, more than the {MAX_PART_BYTES} bound at once");
        return Err(tensor_fail(tensor, &reason));
    }
    let got = part.scales.map(|extent| extent.size);
    if got != scales {
        let text = |size: Option<u64>| size.map_or("none".into(), |size| format!("{size} bytes"));
        let reason = format!("scales: {}, expected {}", text(got), text(scales));
        return Err(tensor_fail(tensor, &reason));
    }
    Ok(())
}

/// Names are plain and distinct, digests are digests.
fn check_entries(field: &str, entries: &[FileEntry]) -> Result<()> {
    let mut names = BTreeSet::new();
    for entry in entries {
        if !is_plain_name(&entry.name) {
            return Err(fail(field, format!("`{}` is not a plain file name", entry.name)));
        }
        if !names.insert(&entry.name) {
            return Err(fail(field, format!("`{}` stands twice", entry.name)));
        }
        check_digest(&format!("{field}: `{}`", entry.name), &entry.sha256)?;
    }
    Ok(())
}

fn check_digest(field: &str, digest: &str) -> Result<()> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digest.len() == 64 && digest.bytes().all(is_hex) {
        return Ok(());
    }
    Err(fail(field, "the digest is not 64 lower-case hex digits".into()))
}

fn fail(field: &str, reason: String) -> Error {
    Error::Manifest { field: field.into(), reason }
}

pub(super) fn tensor_fail(tensor: &PackedTensor, reason: &str) -> Error {
    fail(&format!("tensors: `{}`", tensor.name), reason.into())
}
