//! The one error type of this crate.

use std::io;

use crate::{
    dtype::Dtype, listing::Listing, names::NameReport, packed::DamageReport, quant::QuantError,
};

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model folder could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes did not arrive: check the disk, the permissions or the connection and retry.
    #[error("{file}: cannot read bytes {start}..{end}: {source}")]
    Read {
        /// File that was read.
        file: String,
        /// First byte asked for.
        start: u64,
        /// One past the last byte asked for.
        end: u64,
        /// What the source said.
        source: io::Error,
    },
    /// The file exists but could not be opened: check its permissions.
    #[error("{file}: cannot open: {source}")]
    Open {
        /// File that was opened.
        file: String,
        /// What the folder said.
        source: io::Error,
    },
    /// The path is not a folder: pass the folder that holds `config.json` and the weights.
    #[error("{path}: not a folder; pass the folder that holds config.json and the weights")]
    NotAFolder {
        /// Path as given.
        path: String,
    },
    /// A file read whole is larger than anything expected: check that it is the right file.
    #[error("{file}: {size} bytes, more than the {limit} read at once; is it the right file?")]
    FileTooLarge {
        /// File asked for.
        file: String,
        /// Its size in bytes.
        size: u64,
        /// Most bytes read at once.
        limit: u64,
    },
    /// The folder has no weights: point to a folder with safetensors files.
    #[error("no weights: neither `model.safetensors` nor `model.safetensors.index.json` found")]
    NoWeights,
    /// A file asked for by name is absent: check the folder.
    #[error("{file}: not found in the model folder")]
    NotFound {
        /// File asked for.
        file: String,
    },
    /// The file is a Git LFS pointer: fetch the real file with `git lfs pull`.
    #[error("{file}: a Git LFS pointer, not weights; run `git lfs pull` or download the file")]
    LfsPointer {
        /// The pointer file.
        file: String,
    },
    /// The file cannot hold a header: download it again.
    #[error("{file}: {size} bytes, but a safetensors file starts with 8; download it again")]
    TooShort {
        /// Offending file.
        file: String,
        /// Its size in bytes.
        size: u64,
    },
    /// The header cannot fit: the file is cut short or is not safetensors.
    #[error(
        "{file}: header length {header} exceeds the {available} bytes after it; \
         the file is truncated or not safetensors"
    )]
    HeaderTooLong {
        /// Offending file.
        file: String,
        /// Declared header length in bytes.
        header: u64,
        /// Bytes after the length field.
        available: u64,
    },
    /// The header is above the limit of the format: the file is not safetensors.
    #[error("{file}: header length {header} exceeds the limit of {limit}; not a safetensors file")]
    HeaderAboveLimit {
        /// Offending file.
        file: String,
        /// Declared header length in bytes.
        header: u64,
        /// Limit of the format in bytes.
        limit: u64,
    },
    /// The header is not text: download the file again.
    #[error("{file}: header is not UTF-8 at byte {at}; download it again")]
    HeaderUtf8 {
        /// Offending file.
        file: String,
        /// Offset of the first bad byte in the header.
        at: usize,
    },
    /// The header is not the JSON object the format asks for: download or export it again.
    #[error("{file}: bad header: {reason}; download or export it again")]
    HeaderJson {
        /// Offending file.
        file: String,
        /// What the JSON parser said, with the tensor where known.
        reason: String,
    },
    /// The index is not the JSON object expected: download it again.
    #[error("{file}: bad index: {reason}; download it again")]
    IndexJson {
        /// Offending file.
        file: String,
        /// What the JSON parser said.
        reason: String,
    },
    /// One name stands twice, so one of two tensors would be lost: export the file again.
    #[error("{file}: `{name}` is listed twice; export the file again")]
    Duplicate {
        /// Offending file.
        file: String,
        /// Repeated name.
        name: String,
    },
    /// The element type is not one we know: convert the checkpoint to F32, F16 or BF16.
    #[error("{file}: `{tensor}` has unknown dtype `{dtype}`; convert it to F32, F16 or BF16")]
    UnknownDtype {
        /// Offending file.
        file: String,
        /// Offending tensor.
        tensor: String,
        /// Spelling in the header.
        dtype: String,
    },
    /// The shape has no valid size: export the file again.
    #[error("{file}: shape {shape:?} of `{tensor}` overflows; export the file again")]
    ShapeOverflow {
        /// Offending file.
        file: String,
        /// Offending tensor.
        tensor: String,
        /// Shape in the header.
        shape: Vec<u64>,
    },
    /// The offsets run backwards: export the file again.
    #[error(
        "{file}: data_offsets of `{tensor}` begin at {begin} and end at {end}; export it again"
    )]
    OffsetsReversed {
        /// Offending file.
        file: String,
        /// Offending tensor.
        tensor: String,
        /// First byte, relative to the data.
        begin: u64,
        /// One past the last byte, relative to the data.
        end: u64,
    },
    /// Shape and offsets disagree: export the file again.
    #[error(
        "{file}: `{tensor}` is {dtype} {shape:?}, {expected} bytes, but data_offsets hold {got}; \
         export the file again"
    )]
    SizeMismatch {
        /// Offending file.
        file: String,
        /// Offending tensor.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<u64>,
        /// Bytes the shape needs.
        expected: u64,
        /// Bytes between the offsets.
        got: u64,
    },
    /// A tensor ends after the file does: download the file again.
    #[error(
        "{file}: `{tensor}` ends at byte {end} of the data, but the file holds {available}; \
         the file is truncated, download it again"
    )]
    Truncated {
        /// Offending file.
        file: String,
        /// Offending tensor.
        tensor: String,
        /// One past its last byte, relative to the data.
        end: u64,
        /// Bytes of data in the file.
        available: u64,
    },
    /// Two tensors share bytes: export the file again.
    #[error("{file}: `{second}` overlaps `{first}` at byte {at} of the data; export it again")]
    Overlap {
        /// Offending file.
        file: String,
        /// Tensor that comes first.
        first: String,
        /// Tensor that starts inside it.
        second: String,
        /// Where the second starts, relative to the data.
        at: u64,
    },
    /// Bytes belong to no tensor: export the file again.
    #[error("{file}: bytes {start}..{end} before `{tensor}` belong to no tensor; export it again")]
    Hole {
        /// Offending file.
        file: String,
        /// Tensor after the hole.
        tensor: String,
        /// First unused byte, relative to the data.
        start: u64,
        /// One past the last unused byte.
        end: u64,
    },
    /// Bytes follow the last tensor: the file was appended to, download it again.
    #[error("{file}: {extra} bytes after the last tensor; download it again")]
    TrailingBytes {
        /// Offending file.
        file: String,
        /// Bytes too many.
        extra: u64,
    },
    /// The index names a file outside the folder: do not trust this checkpoint.
    #[error("{file}: shard name `{shard}` is not a plain file name; do not use this checkpoint")]
    ShardName {
        /// The index.
        file: String,
        /// Name it gave.
        shard: String,
    },
    /// Shards are absent: download the ones listed.
    #[error("{file}: {} listed but absent; download them:{}", shards.len(), Listing(shards))]
    MissingShards {
        /// The index.
        file: String,
        /// Every absent shard.
        shards: Vec<String>,
    },
    /// Index and shard disagree: they come from different exports, download both again.
    #[error(
        "{file}: disagrees with the index: {} tensors absent:{}\n{} tensors not in the index:{}\n\
         download both again",
        absent.len(), Listing(absent), unlisted.len(), Listing(unlisted)
    )]
    ShardMismatch {
        /// Offending shard.
        file: String,
        /// Tensors the index places in this shard that it lacks.
        absent: Vec<String>,
        /// Tensors in this shard that the index does not place there.
        unlisted: Vec<String>,
    },
    /// Two stored names map to one: the name mapping does not fit this checkpoint.
    #[error("`{first}` and `{second}` both map to `{name}`; the checkpoint mixes two layouts")]
    RenameCollision {
        /// First stored name.
        first: String,
        /// Second stored name.
        second: String,
        /// Name both map to.
        name: String,
    },
    /// No tensor has this name: check the model variant.
    #[error("no tensor `{name}`{}; is this the right model?", nearest_hint(nearest))]
    UnknownTensor {
        /// Name asked for.
        name: String,
        /// The most similar name there is.
        nearest: Option<String>,
    },
    /// The element range leaves the tensor: a caller's mistake.
    #[error("{file}: elements {start}..{end} of `{tensor}`, which has {n_elements}")]
    ElementRange {
        /// File of the tensor.
        file: String,
        /// Tensor read.
        tensor: String,
        /// First element asked for.
        start: usize,
        /// One past the last element asked for.
        end: usize,
        /// Elements in the tensor.
        n_elements: usize,
    },
    /// The tensor does not hold floats we convert: convert the checkpoint to F32, F16 or BF16.
    #[error("{file}: `{tensor}` is {dtype}; only F32, F16 and BF16 are read, convert it")]
    NotConvertible {
        /// Offending file.
        file: String,
        /// Offending tensor.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
    },
    /// A weight is NaN or infinite: the file is damaged, download it again.
    #[error("{file}: `{tensor}` holds {value} at element {at}; download it again")]
    NotFinite {
        /// Offending file.
        file: String,
        /// Offending tensor.
        tensor: String,
        /// Index of the first such element.
        at: usize,
        /// Its value.
        value: f32,
    },
    /// The host copy does not fit in memory: free memory or use a smaller model.
    #[error("`{tensor}`: no memory for a copy of {bytes} bytes; free some or use a smaller model")]
    OutOfMemory {
        /// Tensor read.
        tensor: String,
        /// Bytes wanted.
        bytes: u64,
    },
    /// The checkpoint is not of the model expected; every difference is listed.
    #[error("{0}")]
    Names(Box<NameReport>),
    /// A manifest of a packed folder contradicts itself: convert or download the model again.
    #[error("manifest.json: {field}: {reason}; convert or download the model again")]
    Manifest {
        /// Field, with the name of the tensor or file where it has one.
        field: String,
        /// What is wrong and what is expected.
        reason: String,
    },
    /// A packed folder of another version: convert the model again with this program.
    #[error(
        "manifest.json: version: {found}, this program reads {supported}; \
         convert the model again or update"
    )]
    ManifestVersion {
        /// Version of the folder.
        found: u32,
        /// Version of this crate.
        supported: u32,
    },
    /// A conversion was interrupted: run it again, it goes on where it stopped.
    #[error("the conversion of this folder is not finished; run `globe convert` again")]
    Unfinished,
    /// Files of a packed folder are not what they were: every one is listed.
    #[error("{0}")]
    Damaged(Box<DamageReport>),
    /// Stopped because the caller asked for it.
    #[error("cancelled")]
    Cancelled,
    /// A list of tensors to be packed contradicts itself: a mistake in a model.
    #[error("`{tensor}` {reason}; the model asks for what cannot be packed, please report it")]
    Spec {
        /// Offending tensor.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A weight cannot be stored in the format asked for.
    #[error("`{tensor}`: {source}")]
    Quantize {
        /// Packed tensor, whose rows the source counts.
        tensor: String,
        /// Which value and why.
        source: QuantError,
    },
    /// A conversion is asked for what does not exist: choose another value.
    #[error("{field}: {reason}")]
    PackOption {
        /// The option.
        field: &'static str,
        /// What is wrong and what is possible.
        reason: String,
    },
    /// The output folder holds something else: name another folder, or delete that one.
    #[error("the output folder holds `{found}` of something else; name another or delete it")]
    OutputTaken {
        /// A file in it.
        found: String,
    },
    /// The disk is full: free some space and run the same command again.
    #[error(
        "{file}: no space left, {missing_bytes} bytes are still to be written; \
         free some and run the same command again: {source}"
    )]
    DiskFull {
        /// File being written.
        file: String,
        /// Bytes that are still to be written.
        missing_bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be written: check the folder and its permissions.
    #[error("{file}: cannot write: {source}")]
    WriteFile {
        /// File being written.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// An adapter is of a kind that cannot be merged here: merge it with PEFT first.
    #[error("{file}: {field}: {reason}")]
    AdapterConfig {
        /// The configuration.
        file: String,
        /// Field of it.
        field: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// An adapter is damaged or changes more than matrices: save it again, or merge it with PEFT.
    #[error("{file}: {} problems:{}", problems.len(), Listing(problems))]
    Adapter {
        /// The weights of the adapter.
        file: String,
        /// Each of them.
        problems: Vec<String>,
    },
    /// An adapter was trained for another model: use it with its own base.
    #[error(
        "the adapter is for another base: {} of its {of} matrices do not fit:{}",
        problems.len(), Listing(problems)
    )]
    AdapterBase {
        /// Matrices of the adapter.
        of: usize,
        /// Each that does not fit.
        problems: Vec<String>,
    },
    /// Trained weights are of another model than the base: pass the folder that training started from.
    #[error(
        "the trained weights are for another base: {} of its {of} tensors do not fit:{}",
        problems.len(), Listing(problems)
    )]
    ReplacedBase {
        /// Trained tensors.
        of: usize,
        /// Each that does not fit.
        problems: Vec<String>,
    },
    /// A merged value is too large for the type of the base: use a base of a wider type.
    #[error(
        "`{tensor}` becomes {value:e} at element {at}, more than {dtype} holds; \
         is the adapter for this base? If so, merge it into a base of BF16 or F32"
    )]
    MergedOverflow {
        /// Tensor of the base.
        tensor: String,
        /// Index of the first such element.
        at: usize,
        /// Its value before it is rounded.
        value: f64,
        /// Element type of the tensor.
        dtype: Dtype,
    },
    /// A GGUF file is damaged, or not of a model that is supported: use another file.
    #[error("{file}: {field}: {reason}")]
    Gguf {
        /// Offending file.
        file: String,
        /// Metadata key, tensor, or part of the file.
        field: String,
        /// What is wrong and what is expected.
        reason: String,
    },
    /// A GGUF file has tensors of a type that is not read: use a file of another type.
    #[error("{file}: {} tensors of a type that is not read ({known} are):{}", tensors.len(), Listing(tensors))]
    GgufTypes {
        /// Offending file.
        file: String,
        /// Each of them, with the number of its type.
        tensors: Vec<String>,
        /// Types that are read.
        known: String,
    },
    /// A tensor to be written is inconsistent: a caller's mistake.
    #[error("cannot write `{tensor}`: {reason}")]
    Write {
        /// Offending tensor.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn nearest_hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; nearest is `{name}`")).unwrap_or_default()
}
