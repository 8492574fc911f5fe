//! Safetensors header: parsed by hand, because the published parser keeps one of two equal names
//! in silence and its errors name neither file nor tensor.

use std::{collections::BTreeMap, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use crate::{
    dtype::Dtype,
    error::{Error, Result},
    index::{Pairs, unique},
    source::{self, Source},
};

/// Longest header the format allows, in bytes.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Bytes of the length field a file starts with.
const LENGTH_BYTES: u64 = 8;

/// How a Git LFS pointer file starts.
const LFS_START: &[u8] = b"version ";

/// Key of the string metadata, never a tensor.
pub(crate) const METADATA: &str = "__metadata__";

/// What a header says, every offset checked against the size of the file.
pub(crate) struct Header {
    pub tensors: Vec<StoredTensor>,
    pub metadata: BTreeMap<String, String>,
}

/// One tensor of a file.
pub(crate) struct StoredTensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub bytes: Range<u64>,
}

/// Reads and checks the header of `file`. Nothing is allocated before the size of the file
/// confirms the length it declares.
pub(crate) async fn read_header<S: Source>(file: &str, source: &S) -> Result<Header> {
    let size = source.size_bytes();
    if size < LENGTH_BYTES {
        return Err(Error::TooShort { file: file.into(), size });
    }
    let start = source::read(source, file, 0..LENGTH_BYTES).await?;
    if *start == *LFS_START {
        return Err(Error::LfsPointer { file: file.into() });
    }
    let header = start.iter().rev().fold(0, |length, &byte| length << 8 | u64::from(byte));
    let available = size - LENGTH_BYTES;
    if header > available {
        return Err(Error::HeaderTooLong { file: file.into(), header, available });
    }
    if header > MAX_HEADER_BYTES {
        return Err(Error::HeaderAboveLimit { file: file.into(), header, limit: MAX_HEADER_BYTES });
    }
    let data = LENGTH_BYTES + header..size;
    let json = source::read(source, file, LENGTH_BYTES..data.start).await?;
    parse(file, &json, data)
}

fn parse(file: &str, json: &[u8], data: Range<u64>) -> Result<Header> {
    let bad_json = |reason: String| Error::HeaderJson { file: file.into(), reason };
    let json = str::from_utf8(json)
        .map_err(|error| Error::HeaderUtf8 { file: file.into(), at: error.valid_up_to() })?;
    if !json.starts_with('{') {
        return Err(bad_json("it does not start with `{`".into()));
    }
    let raw: RawHeader = serde_json::from_str(json).map_err(|error| bad_json(error.to_string()))?;
    if raw.n_metadata > 1 {
        return Err(Error::Duplicate { file: file.into(), name: METADATA.into() });
    }

    let mut spans = Vec::new();
    for (name, tensor) in unique(file, raw.tensors)? {
        spans.push(check_tensor(file, name, tensor, data.end - data.start)?);
    }
    check_cover(file, &mut spans, data.end - data.start)?;
    for tensor in &mut spans {
        tensor.bytes = data.start + tensor.bytes.start..data.start + tensor.bytes.end;
    }
    Ok(Header { tensors: spans, metadata: unique(file, raw.metadata)? })
}

/// One tensor against its own shape and the size of the data; offsets stay relative to the data.
fn check_tensor(file: &str, name: String, raw: RawTensor, available: u64) -> Result<StoredTensor> {
    let RawTensor { dtype, shape, data_offsets: (begin, end) } = raw;
    let (file, tensor) = (file.to_string(), name.clone());
    let Some(known) = Dtype::from_name(&dtype) else {
        return Err(Error::UnknownDtype { file, tensor, dtype });
    };
    let Some(expected) = size_bytes(known, &shape) else {
        return Err(Error::ShapeOverflow { file, tensor, shape });
    };
    if begin > end {
        return Err(Error::OffsetsReversed { file, tensor, begin, end });
    }
    if end - begin != expected {
        let got = end - begin;
        return Err(Error::SizeMismatch { file, tensor, dtype: known, shape, expected, got });
    }
    if end > available {
        return Err(Error::Truncated { file, tensor, end, available });
    }
    let dims: std::result::Result<Vec<usize>, _> = shape.iter().map(|&d| d.try_into()).collect();
    let Ok(dims) = dims else {
        return Err(Error::ShapeOverflow { file, tensor, shape });
    };
    Ok(StoredTensor { name, dtype: known, shape: dims, bytes: begin..end })
}

/// Bytes of a tensor, if this platform can address them.
fn size_bytes(dtype: Dtype, shape: &[u64]) -> Option<u64> {
    let size = dtype.size_bytes() as u64;
    let size = shape.iter().try_fold(size, |size, &dim| size.checked_mul(dim))?;
    usize::try_from(size).is_ok().then_some(size)
}

/// Sorts tensors by offset and checks that they cover the data once, end to end.
fn check_cover(file: &str, tensors: &mut [StoredTensor], available: u64) -> Result<()> {
    tensors.sort_by_key(|tensor| (tensor.bytes.start, tensor.bytes.end));
    let (mut covered, mut previous) = (0, "");
    for tensor in tensors.iter() {
        let (file, name, at) = (file.to_string(), tensor.name.clone(), tensor.bytes.start);
        if at < covered {
            return Err(Error::Overlap { file, first: previous.into(), second: name, at });
        }
        if at > covered {
            return Err(Error::Hole { file, tensor: name, start: covered, end: at });
        }
        (covered, previous) = (tensor.bytes.end, &tensor.name);
    }
    match available - covered {
        0 => Ok(()),
        extra => Err(Error::TrailingBytes { file: file.into(), extra }),
    }
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

struct RawHeader {
    tensors: Pairs<RawTensor>,
    metadata: Pairs<String>,
    n_metadata: usize,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<M: MapAccess<'de>>(
        self,
        mut map: M,
    ) -> std::result::Result<Self::Value, M::Error> {
        let (mut tensors, mut metadata, mut n_metadata) = (Vec::new(), Pairs(Vec::new()), 0);
        while let Some(name) = map.next_key::<String>()? {
            let named = |e: M::Error| M::Error::custom(format!("`{name}`: {e}"));
            if name == METADATA {
                metadata = map.next_value().map_err(named)?;
                n_metadata += 1;
            } else {
                let tensor = map.next_value().map_err(named)?;
                tensors.push((name, tensor));
            }
        }
        Ok(RawHeader { tensors: Pairs(tensors), metadata, n_metadata })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with `json` as its header and `n_data` zero bytes behind it.
    fn file(json: &str, n_data: usize) -> Vec<u8> {
        let length = (json.len() as u64).to_le_bytes();
        [&length, json.as_bytes(), &vec![0; n_data]].concat()
    }

    fn header(bytes: Vec<u8>) -> Result<Header> {
        pollster::block_on(read_header("m.safetensors", &bytes))
    }

    fn error(json: &str, n_data: usize) -> Error {
        header(file(json, n_data)).err().expect("accepted")
    }

    const A: &str = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;

    #[test]
    fn reads_tensors_and_metadata_in_file_order() {
        let json = format!(
            r#"{{"__metadata__":{{"format":"pt"}},
            "z":{{"dtype":"BF16","shape":[],"data_offsets":[8,10],"extra":0}},
            "none":{{"dtype":"F64","shape":[3,0],"data_offsets":[8,8]}},{A}}}   "#
        );
        let header = header(file(&json, 10)).unwrap();
        let names: Vec<_> = header.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "none", "z"]);
        let start = 8 + json.len() as u64;
        assert_eq!(header.tensors[0].bytes, start..start + 8);
        assert_eq!(header.tensors[2].bytes, start + 8..start + 10);
        assert_eq!(header.tensors[1].shape, [3, 0]);
        assert_eq!(header.metadata["format"], "pt");
    }

    #[test]
    fn an_empty_file_of_no_tensors_is_valid() {
        assert!(header(file("{}", 0)).unwrap().tensors.is_empty());
    }

    #[test]
    fn the_length_field_is_checked_first() {
        assert!(matches!(header(vec![0; 7]), Err(Error::TooShort { size: 7, .. })));
        let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00".to_vec();
        assert!(matches!(header(lfs), Err(Error::LfsPointer { .. })));
        let cut = [&100_u64.to_le_bytes()[..], b"{}"].concat();
        let message = header(cut).err().unwrap().to_string();
        assert!(message.contains("header length 100 exceeds the 2 bytes after it"), "{message}");
    }

    struct Sparse(u64);

    impl Source for Sparse {
        fn size_bytes(&self) -> u64 {
            u64::MAX
        }

        async fn read(&self, range: Range<u64>) -> std::io::Result<std::borrow::Cow<'_, [u8]>> {
            assert_eq!(range, 0..8, "nothing beyond the length may be read");
            Ok(self.0.to_le_bytes().to_vec().into())
        }
    }

    #[test]
    fn a_header_above_the_limit_is_not_read() {
        let got = pollster::block_on(read_header("m", &Sparse(MAX_HEADER_BYTES + 1)));
        assert!(matches!(got, Err(Error::HeaderAboveLimit { .. })));
    }

    #[test]
    fn text_and_json_errors_name_the_place() {
        let mut bytes = file("{}", 0);
        bytes[9] = 0xff;
        assert!(matches!(header(bytes), Err(Error::HeaderUtf8 { at: 1, .. })));
        for (json, part) in [
            ("", "does not start with `{`"),
            (" {}", "does not start with `{`"),
            ("[]", "does not start with `{`"),
            ("{", "EOF"),
            ("{} x", "trailing characters"),
            (r#"{"a":1}"#, "`a`: invalid type"),
            (r#"{"a":{"dtype":"F32","shape":[1]}}"#, "`a`: missing field `data_offsets`"),
            (r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, "`a`: invalid value"),
            (r#"{"a":{"dtype":"F32","dtype":"F32"}}"#, "`a`: duplicate field `dtype`"),
            (r#"{"__metadata__":{"step":3}}"#, "`__metadata__`: `step`: invalid type"),
        ] {
            let message = error(json, 0).to_string();
            assert!(message.starts_with("m.safetensors: bad header: "), "{message}");
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn duplicates_are_refused() {
        for (json, name) in [
            (format!("{{{A},{A}}}"), "a"),
            (r#"{"__metadata__":{},"__metadata__":{}}"#.into(), "__metadata__"),
            (r#"{"__metadata__":{"k":"1","k":"2"}}"#.into(), "k"),
        ] {
            assert!(matches!(error(&json, if name == "a" { 8 } else { 0 }),
                Error::Duplicate { name: got, .. } if got == name));
        }
    }

    fn tensor(dtype: &str, shape: &str, offsets: &str) -> String {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    }

    #[test]
    fn a_tensor_must_fit_its_shape_and_the_file() {
        let one = |dtype, shape, offsets, n_data| {
            error(&format!(r#"{{"a":{}}}"#, tensor(dtype, shape, offsets)), n_data)
        };
        assert!(matches!(one("F31", "[1]", "[0,4]", 4), Error::UnknownDtype { .. }));
        let big = "[4294967296,4294967296]";
        assert!(matches!(one("F32", big, "[0,4]", 4), Error::ShapeOverflow { .. }));
        assert!(matches!(one("F32", "[1]", "[4,0]", 4), Error::OffsetsReversed { .. }));
        let mismatch = one("BF16", "[2,3]", "[0,10]", 10);
        assert!(matches!(mismatch, Error::SizeMismatch { expected: 12, got: 10, .. }));
        let cut = one("F32", "[2]", "[0,8]", 7);
        assert!(matches!(cut, Error::Truncated { end: 8, available: 7, .. }));
        let max = "[18446744073709551611,18446744073709551615]";
        assert!(matches!(one("F32", "[1]", max, 4), Error::Truncated { .. }));
    }

    #[test]
    fn tensors_must_cover_the_data_once() {
        let b = |offsets| format!(r#"{{{A},"b":{}}}"#, tensor("F32", "[2]", offsets));
        let overlap = error(&b("[4,12]"), 12);
        assert!(matches!(&overlap, Error::Overlap { first, second, at: 4, .. }
            if first == "a" && second == "b"));
        assert!(matches!(error(&b("[0,8]"), 8), Error::Overlap { .. }));
        assert!(matches!(error(&b("[12,20]"), 20), Error::Hole { start: 8, end: 12, .. }));
        assert!(matches!(error(&b("[8,16]"), 19), Error::TrailingBytes { extra: 3, .. }));
    }
}
