//! Whole checkpoints: written, opened, renamed, compared and read, and damaged in every way.

use std::{borrow::Cow, collections::BTreeMap};

use globe_format::{
    Checkpoint, Dtype, Error, Files, INDEX_FILE, MAX_LISTED, MemoryFiles, OutTensor, Result,
    SINGLE_FILE, write_safetensors,
};
use pollster::block_on;

fn tensor(name: &str, dtype: Dtype, shape: &[usize], data: Vec<u8>) -> OutTensor<'static> {
    OutTensor { name: name.into(), dtype, shape: shape.into(), data: Cow::Owned(data) }
}

fn bf16(name: &str, values: &[f32]) -> OutTensor<'static> {
    let data = values.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect();
    tensor(name, Dtype::Bf16, &[values.len()], data)
}

fn f16(name: &str, values: &[f32]) -> OutTensor<'static> {
    let data = values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect();
    tensor(name, Dtype::F16, &[values.len()], data)
}

fn write(tensors: &[OutTensor<'_>]) -> Vec<u8> {
    write_safetensors(tensors, &BTreeMap::new()).expect("valid tensors")
}

fn single(tensors: &[OutTensor<'_>]) -> Checkpoint<Vec<u8>> {
    block_on(Checkpoint::from_source("m.safetensors", write(tensors))).expect("a valid file")
}

fn open<F: Files>(files: &F) -> Result<Checkpoint<F::Source>> {
    block_on(Checkpoint::open(files))
}

fn index(pairs: &[(&str, &str)]) -> Vec<u8> {
    let map: Vec<_> = pairs.iter().map(|(name, file)| format!("\"{name}\":\"{file}\"")).collect();
    format!("{{\"metadata\":{{}},\"weight_map\":{{{}}}}}", map.join(",")).into_bytes()
}

#[test]
fn round_trip() {
    let values = [0.0, -1.5, 3.25, 65504.0];
    let tensors = [
        f16("c", &values),
        OutTensor::f32("b", &[2, 2], &values),
        bf16("a", &values[..3]),
        tensor("ids", Dtype::I64, &[1], vec![1, 0, 0, 0, 0, 0, 0, 0]),
        tensor("flag", Dtype::Bool, &[], vec![1]),
    ];
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = write_safetensors(&tensors, &metadata).unwrap();
    let data_start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(data_start % 8, 0);

    let w = block_on(Checkpoint::from_source("m", bytes)).unwrap();
    assert_eq!(w.names().collect::<Vec<_>>(), ["a", "b", "c", "flag", "ids"]);
    assert_eq!(w.metadata()["format"], "pt");
    assert_eq!(block_on(w.read_f32("a")).unwrap(), values[..3]);
    assert_eq!(block_on(w.read_f32("b")).unwrap(), values);
    assert_eq!(block_on(w.read_f32("c")).unwrap(), values);
    assert_eq!(block_on(w.read_f32_range("b", 1..3)).unwrap(), values[1..3]);
    assert!(block_on(w.read_f32_range("a", 3..3)).unwrap().is_empty());
    let info = w.info("b").unwrap();
    assert_eq!((info.dtype, &info.shape[..], info.file.as_str()), (Dtype::F32, &[2, 2][..], "m"));
    assert_eq!(w.total_bytes(), 6 + 16 + 8 + 1 + 8);
    let summary = w.dtype_summary();
    let row = summary.iter().find(|row| row.dtype == Dtype::F32).unwrap();
    assert_eq!((row.n_tensors, row.n_elements, row.size_bytes), (1, 4, 16));
    assert_eq!(summary.iter().map(|row| row.size_bytes).sum::<u64>(), w.total_bytes());
}

#[test]
fn writing_is_deterministic() {
    let (a, b) = (OutTensor::f32("a", &[1], &[1.0]), bf16("b", &[2.0]));
    let expected = concat!(
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"#,
        r#""b":{"dtype":"BF16","shape":[1],"data_offsets":[4,6]}}"#
    );
    let bytes = write(&[b.clone(), a.clone()]);
    assert_eq!(bytes, write(&[a, b]));
    assert_eq!(String::from_utf8_lossy(&bytes[8..bytes.len() - 6]).trim_end(), expected);
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let refuse = |tensors: &[OutTensor<'_>]| {
        let error = write_safetensors(tensors, &BTreeMap::new()).unwrap_err();
        assert!(matches!(error, Error::Write { .. }), "{error}");
    };
    refuse(&[OutTensor::f32("a", &[2], &[1.0])]);
    refuse(&[OutTensor::f32("a", &[usize::MAX, 8], &[1.0])]);
    refuse(&[bf16("a", &[1.0]), OutTensor::f32("a", &[1], &[1.0])]);
    refuse(&[OutTensor::f32("__metadata__", &[1], &[1.0])]);
}

#[test]
fn large_tensors_are_read_in_chunks() {
    let values: Vec<f32> = (0..(5 << 20)).map(|i| i as f32).collect();
    let w = single(&[OutTensor::f32("big", &[5 << 20], &values)]);
    assert!(block_on(w.read_f32("big")).unwrap() == values);
    let tail = values.len() - 5..values.len();
    assert_eq!(block_on(w.read_f32_range("big", tail.clone())).unwrap(), values[tail]);
}

#[test]
fn shards_join_by_the_index() {
    let mut files = MemoryFiles::default();
    files.insert("1.safetensors", write(&[bf16("a", &[1.0]), bf16("c", &[3.0])]));
    files.insert("2.safetensors", write(&[f16("b", &[2.0])]));
    files.insert(
        INDEX_FILE,
        index(&[("a", "1.safetensors"), ("b", "2.safetensors"), ("c", "1.safetensors")]),
    );
    let w = open(&files).unwrap();
    assert_eq!(w.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(w.info("b").unwrap().file, "2.safetensors");
    assert_eq!(block_on(w.read_f32("b")).unwrap(), [2.0]);
    assert_eq!(block_on(w.read_f32("c")).unwrap(), [3.0]);

    files.insert(SINGLE_FILE, write(&[bf16("only", &[1.0])]));
    assert_eq!(open(&files).unwrap().names().collect::<Vec<_>>(), ["only"]);
}

#[test]
fn shard_errors_list_everything() {
    let mut files = MemoryFiles::default();
    assert!(matches!(open(&files).unwrap_err(), Error::NoWeights));
    files.insert(INDEX_FILE, index(&[("a", "1"), ("b", "2"), ("c", "3")]));
    files.insert("1", write(&[bf16("a", &[1.0])]));
    let error = open(&files).unwrap_err();
    assert!(matches!(&error, Error::MissingShards { shards, .. } if *shards == ["2", "3"]));
    assert!(error.to_string().contains("2 listed but absent; download them:\n  2\n  3"));

    files.insert(INDEX_FILE, index(&[("a", "1"), ("b", "1")]));
    files.insert("1", write(&[bf16("a", &[1.0]), bf16("x", &[1.0])]));
    let error = open(&files).unwrap_err();
    assert!(matches!(&error, Error::ShardMismatch { file, absent, unlisted }
        if file == "1" && *absent == ["b"] && *unlisted == ["x"]));

    files.insert(INDEX_FILE, index(&[("a", "../1")]));
    assert!(matches!(open(&files).unwrap_err(), Error::ShardName { .. }));
}

#[test]
fn one_file_by_name() {
    let files = MemoryFiles::from_iter([("adapter.safetensors", write(&[bf16("a", &[1.0])]))]);
    let w = block_on(Checkpoint::open_file(&files, "adapter.safetensors")).unwrap();
    assert_eq!(w.names().len(), 1);
    let error = block_on(Checkpoint::open_file(&files, "b")).unwrap_err();
    assert_eq!(error.to_string(), "b: not found in the model folder");
}

#[test]
fn rename_keeps_stored_names_for_errors() {
    let w = single(&[bf16("old.a", &[f32::NAN]), bf16("b", &[1.0])]);
    let w = w.rename(|name| name.strip_prefix("old.").map(|rest| format!("new.{rest}"))).unwrap();
    assert_eq!(w.names().collect::<Vec<_>>(), ["b", "new.a"]);
    assert_eq!(w.info("new.a").unwrap().stored_name, "old.a");
    let error = block_on(w.read_f32("new.a")).unwrap_err().to_string();
    assert!(error.contains("`new.a (stored as old.a)` holds NaN at element 0"), "{error}");
    let error = w.rename(|_| Some("same".into())).unwrap_err();
    assert!(matches!(error, Error::RenameCollision { first, second, name }
        if first == "b" && second == "old.a" && name == "same"));
}

#[test]
fn reading_errors_name_tensor_and_file() {
    let mut values = vec![1.0; 100];
    values[42] = f32::INFINITY;
    let ids = tensor("ids", Dtype::I64, &[1], vec![0; 8]);
    let w = single(&[f16("x.weight", &values), ids]);
    let error = block_on(w.read_f32("x.weight")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "m.safetensors: `x.weight` holds inf at element 42; download it again"
    );
    let error = block_on(w.read_f32_range("x.weight", 40..50)).unwrap_err();
    assert!(matches!(error, Error::NotFinite { at: 42, .. }));
    let error = block_on(w.read_finite_range("x.weight", 40..50)).unwrap_err();
    assert!(matches!(error, Error::NotFinite { at: 42, .. }));
    let error = block_on(w.read_finite_range("ids", 0..1)).unwrap_err();
    assert!(matches!(error, Error::NotConvertible { dtype: Dtype::I64, .. }));
    let error = block_on(w.read_f32("ids")).unwrap_err();
    assert!(matches!(error, Error::NotConvertible { dtype: Dtype::I64, .. }));
    let error = block_on(w.read_f32("x.weigth")).unwrap_err();
    assert!(matches!(&error, Error::UnknownTensor { nearest: Some(n), .. } if n == "x.weight"));
    for range in [50..101, std::ops::Range { start: 3, end: 2 }] {
        let error = block_on(w.read_f32_range("x.weight", range)).unwrap_err();
        assert!(matches!(error, Error::ElementRange { n_elements: 100, .. }));
    }
    let error = block_on(w.read_finite_range("x.weight", 0..101)).unwrap_err();
    assert!(matches!(error, Error::ElementRange { n_elements: 100, .. }));
}

#[test]
fn finite_elements_are_given_as_they_are_stored() {
    let values: Vec<f32> = (0..5000).map(|i| i as f32 - 2500.0).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let plain = tensor("plain", Dtype::F32, &[5000], bytes.clone());
    let w = single(&[f16("half", &values), bf16("brain", &values), plain]);
    assert_eq!(block_on(w.read_finite_range("plain", 7..4999)).unwrap()[..], bytes[28..19_996]);
    for name in ["half", "brain"] {
        let stored = block_on(w.read_bytes(name)).unwrap();
        assert_eq!(block_on(w.read_finite_range(name, 10..20)).unwrap()[..], stored[20..40]);
        assert_eq!(block_on(w.read_finite_range(name, 0..5000)).unwrap(), stored);
    }
}

#[test]
fn check_names_reports_everything_at_once() {
    let w = single(&[
        bf16("layers.0.up.weight", &[1.0, 2.0]),
        bf16("layers.0.down.weigth", &[1.0]),
        bf16("rotary.inv_freq", &[1.0]),
    ]);
    let expected = [
        ("layers.0.up.weight".to_string(), vec![2, 1]),
        ("layers.0.down.weight".to_string(), vec![1]),
    ];
    let error = w.check_names(&expected, |name| name.ends_with("inv_freq")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "checkpoint does not fit the model: 1 tensors missing, 1 with another shape, 1 extra; \
         is this the right model?\
         \n  shape of `layers.0.up.weight`: expected [2, 1], got [2]\
         \n  extra `layers.0.down.weigth`\
         \n  missing `layers.0.down.weight` [1]; nearest is `layers.0.down.weigth`"
    );
    let right = [
        ("layers.0.up.weight".to_string(), vec![2]),
        ("layers.0.down.weigth".to_string(), vec![1]),
    ];
    w.check_names(&right, |name| name.ends_with("inv_freq")).unwrap();
    assert!(w.check_names(&right, |_| false).is_err());
}

#[test]
fn check_names_caps_the_list() {
    let w = single(&[bf16("a", &[1.0])]);
    let expected: Vec<_> = (0..MAX_LISTED + 60).map(|i| (format!("w.{i}"), vec![1])).collect();
    let text = w.check_names(&expected, |_| true).unwrap_err().to_string();
    assert_eq!(text.lines().count(), MAX_LISTED + 2);
    assert!(text.ends_with("and 60 more"));
}
