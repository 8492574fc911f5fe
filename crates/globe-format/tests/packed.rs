//! Packed folders: written, read back against the oracle, and damaged in every way.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{borrow::Cow, collections::BTreeMap, fs, path::Path, sync::OnceLock};

use globe_format::{
    Checkpoint, Error, Files, Folder, MemoryFiles, OutTensor, WeightFormat, dequantize,
    pack::{PackJob, PackOptions, pack},
    packed::{
        Class, Damage, MANIFEST_FILE, Manifest, Packed, PackedTensor, Provenance, SourceRows,
        TensorSpec, is_packed, verify,
    },
    write_safetensors,
};
use pollster::block_on;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

const ROWS: usize = 50;
const COLS: usize = 72;

fn numbers(n: usize, step: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * step).sin() * 0.05).collect()
}

fn source(name: &str, padded_rows: usize) -> SourceRows {
    SourceRows { name: name.into(), rows: ROWS, cols: COLS, padded_rows }
}

fn specs() -> Vec<TensorSpec> {
    vec![
        TensorSpec::vector("norm", 70),
        TensorSpec::interleave("gate_up", Class::Text, vec![source("a", 64), source("b", 64)]),
        TensorSpec::matrix("a", Class::Vision, ROWS, COLS).padded_to(96),
        TensorSpec::matrix("b", Class::Embedding, ROWS, COLS),
    ]
}

fn checkpoint() -> Checkpoint<Vec<u8>> {
    let tensors = [
        OutTensor::f32("norm", &[70], &numbers(70, 0.1)),
        OutTensor::f32("a", &[ROWS, COLS], &numbers(ROWS * COLS, 0.37)),
        OutTensor::f32("b", &[ROWS, COLS], &numbers(ROWS * COLS, 0.71)),
    ];
    let bytes = write_safetensors(&tensors, &BTreeMap::new()).unwrap();
    block_on(Checkpoint::from_source("m.safetensors", bytes)).unwrap()
}

fn packed(bits: u32, vision_bits: u32, shard_bytes: u64) -> TempDir {
    let (specs, out) = (specs(), tempdir().unwrap());
    let job = PackJob {
        architecture: "test",
        specs: &specs,
        options: PackOptions { bits, vision_bits, shard_bytes },
        source: Provenance::default(),
        files: vec![("config.json".into(), b"{}\n".to_vec())],
    };
    block_on(pack(&job, &checkpoint(), out.path(), &mut |_| {}, &|| false)).unwrap();
    out
}

fn in_memory(folder: &Path) -> MemoryFiles {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}

/// All rows of a tensor as kernels see them.
fn values<S: globe_format::Source>(packed: &Packed<S>, tensor: &PackedTensor) -> Vec<f32> {
    let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
    let mut values = Vec::new();
    for part in &tensor.parts {
        let bytes = block_on(packed.read(part.words)).unwrap();
        let words: Vec<u32> = bytes.as_chunks().0.iter().map(word).collect();
        if tensor.is_vector() {
            values.extend(words.into_iter().map(f32::from_bits));
            continue;
        }
        let bytes = part.scales.map(|extent| block_on(packed.read(extent)).unwrap());
        let bytes = bytes.unwrap_or_default();
        let scales: Vec<u16> = bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
        let cols = tensor.cols();
        values.extend(dequantize(tensor.format, &words, &scales, part.rows, cols).unwrap());
    }
    values
}

fn close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance, "{i}: {got} against {expected}");
    }
}

#[test]
fn every_format_reads_back_across_shards() {
    // One step of the scale that reaches the largest value.
    for (bits, tolerance) in [(4, 0.05 / 8.0), (8, 0.05 / 127.0), (16, 0.05 / 2048.0), (32, 0.0)] {
        let out = packed(bits, bits, 512);
        let memory = in_memory(out.path());
        let open = block_on(Packed::open(&memory)).unwrap();
        open.check(&specs()).unwrap();
        assert!(block_on(is_packed(&memory)).unwrap());

        let (a, b) = (numbers(ROWS * COLS, 0.37), numbers(ROWS * COLS, 0.71));
        let get = |name: &str| values(&open, open.tensor(name).unwrap());
        assert_eq!(get("norm"), numbers(70, 0.1));
        close(&get("b"), &b, tolerance);
        let zeros = [0.0; COLS];
        let gate_up: Vec<f32> = (0..64)
            .flat_map(|row| {
                let row = |of: &[f32]| of.chunks(COLS).nth(row).unwrap_or(&zeros).to_vec();
                [row(&a), row(&b)].concat()
            })
            .collect();
        close(&get("gate_up"), &gate_up, tolerance);
        let padded: Vec<f32> = a.chunks(COLS).flat_map(|row| [row, &[0.0; 24]].concat()).collect();
        close(&get("a"), &padded, tolerance);
        let error = open.tensor("gate_upp").unwrap_err().to_string();
        assert!(error.contains("nearest is `gate_up`"), "{error}");
    }
}

#[test]
fn shards_do_not_change_the_array() {
    let whole = |shard_bytes| {
        let out = packed(4, 8, shard_bytes);
        let manifest = block_on(verify(&in_memory(out.path()), &mut |_, _| true)).unwrap();
        let read = |entry: &globe_format::packed::FileEntry| fs::read(out.path().join(&entry.name));
        let bytes: Vec<u8> =
            manifest.shards.iter().flat_map(|entry| read(entry).unwrap()).collect();
        (bytes, manifest.sha256, manifest.tensors)
    };
    let one = whole(1 << 20);
    assert_eq!(one, whole(256));
    assert_eq!(one, whole(768));
}

#[test]
fn a_map_lends_bytes_within_one_shard() {
    let out = packed(4, 8, 1 << 20);
    let folder = Folder::open(out.path()).unwrap();
    let open = block_on(Packed::open(&folder)).unwrap();
    for tensor in &open.manifest().tensors {
        let bytes = block_on(open.read(tensor.parts[0].words)).unwrap();
        assert!(matches!(bytes, Cow::Borrowed(_)), "{}", tensor.name);
    }
    let mut outside = open.manifest().tensors[0].parts[0].words;
    outside.offset = open.manifest().total_bytes - 4;
    assert!(matches!(block_on(open.read(outside)).unwrap_err(), Error::Read { .. }));
}

#[test]
fn other_models_are_refused_with_every_difference() {
    let out = packed(4, 8, 4096);
    let open = block_on(Packed::open(&in_memory(out.path()))).unwrap();
    let mut other = specs();
    other[0] = TensorSpec::vector("norm", 71);
    other[3] = TensorSpec::matrix("gate_upp", Class::Text, 128, COLS);
    let error = open.check(&other).unwrap_err().to_string();
    assert!(error.contains("shape of `norm`: expected [71], got [70]"), "{error}");
    assert!(error.contains("extra `b`"), "{error}");
    assert!(error.contains("missing `gate_upp` [128, 72]; nearest is `gate_up`"), "{error}");
}

fn damage(files: &MemoryFiles) -> Vec<(String, Damage)> {
    match block_on(verify(files, &mut |_, _| true)).unwrap_err() {
        Error::Damaged(report) => report.files,
        other => panic!("{other}"),
    }
}

#[test]
fn every_damaged_file_is_named_with_both_digests() {
    let out = packed(4, 8, 2048);
    let good = in_memory(out.path());
    let manifest = block_on(verify(&good, &mut |_, _| true)).unwrap();
    let [first, second, third] = &manifest.shards[..3] else { panic!("few shards") };
    let bytes = |name: &str| fs::read(out.path().join(name)).unwrap();

    let mut files = good.clone();
    let mut flipped = bytes(&first.name);
    flipped[1000] ^= 0x10;
    files.insert(&first.name, flipped);
    files.insert(&second.name, bytes(&second.name)[..77].to_vec());
    files.insert(&third.name, [bytes(&third.name), vec![0]].concat());
    files.insert("config.json", b"{}".to_vec());
    let found = damage(&files);
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [&first.name, &second.name, &third.name, "config.json"]);
    let Damage::Digest { expected, found: digest } = &found[0].1 else { panic!("{found:?}") };
    assert!(*expected == first.sha256 && digest.len() == 64 && digest != expected);
    assert_eq!(found[1].1, Damage::Size { expected: 2048, found: 77 });
    let error = block_on(Packed::open(&files)).unwrap_err().to_string();
    assert!(error.starts_with("2 of"), "sizes are checked when opened: {error}");
    let truncated = "model-00002.bin: truncated: expected 2048 bytes, found 77";
    assert!(error.contains(truncated), "{error}");

    fs::remove_file(out.path().join(&third.name)).unwrap();
    let error = block_on(Packed::open(&in_memory(out.path()))).unwrap_err().to_string();
    assert!(error.contains("model-00003.bin: missing"), "{error}");
    assert_eq!(damage(&in_memory(out.path())), [(third.name.clone(), Damage::Missing)]);

    let stop = block_on(verify(&good, &mut |done, all| done < all / 2)).unwrap_err();
    assert!(matches!(stop, Error::Cancelled));
}

#[test]
fn folders_without_a_manifest_say_why() {
    let mut files = MemoryFiles::default();
    assert!(!block_on(is_packed(&files)).unwrap());
    assert!(matches!(block_on(Packed::open(&files)).unwrap_err(), Error::NotFound { .. }));
    files.insert("manifest.json.partial", b"{}".to_vec());
    assert!(block_on(is_packed(&files)).unwrap());
    assert!(matches!(block_on(Packed::open(&files)).unwrap_err(), Error::Unfinished));
}

/// A folder and its manifest as JSON, to be changed.
fn folder() -> &'static (MemoryFiles, Value) {
    static FOLDER: OnceLock<(MemoryFiles, Value)> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let out = packed(4, 8, 4096);
        let manifest = fs::read(out.path().join(MANIFEST_FILE)).unwrap();
        (in_memory(out.path()), serde_json::from_slice(&manifest).unwrap())
    })
}

fn parse(json: &Value) -> Result<Manifest, Error> {
    Manifest::parse(json.to_string().as_bytes())
}

#[test]
fn wrong_manifests_name_the_field() {
    let good = &folder().1;
    let text = parse(good).unwrap().to_json().unwrap();
    assert_eq!(parse(&serde_json::from_slice(&text).unwrap()).unwrap().to_json().unwrap(), text);
    let cases: [(&str, Value, &str); 24] = [
        ("/format", json!("gguf"), "format: `gguf`, expected `globe-packed`"),
        ("/version", json!(2), "version: 2, this program reads 1"),
        ("/version", json!("1"), "invalid type: string"),
        ("/bits", json!(5), "bits: 5, known are"),
        ("/vision_bits", json!(3), "vision_bits: 3"),
        ("/shard_bytes", json!(0), "shard_bytes: 0"),
        ("/shard_bytes", json!(100), "shard_bytes: 100"),
        ("/shard_bytes", json!(8192), "shards: "),
        ("/total_bytes", json!(1), "shards: "),
        ("/sha256", json!("ABC"), "sha256: the digest is not 64"),
        ("/shards/0/name", json!("../x"), "shards: `../x` is not a plain file name"),
        ("/shards/1/name", json!("model-00001.bin"), "`model-00001.bin` stands twice"),
        ("/shards/0/size", json!(4095), "`model-00001.bin`: is 4095 bytes, expected 4096"),
        ("/files/0/sha256", json!(""), "files: `config.json`: the digest"),
        ("/tensors/1/name", json!("norm"), "tensors: `norm`: stands twice"),
        ("/tensors/1/format", json!("q5"), "unknown format `q5`; known: q4, q8, f16, f32"),
        ("/tensors/0/format", json!("q4"), "`norm`: a vector as q4"),
        ("/tensors/1/shape", json!([128, 72, 1]), "`gate_up`: shape [128, 72, 1]"),
        ("/tensors/1/shape", json!([u64::MAX, 72]), "`gate_up`: shape"),
        ("/tensors/1/shape", json!([128, 97]), "`gate_up`: words of 6144 bytes"),
        ("/tensors/1/parts/0/rows", json!(127), "`gate_up`: words of"),
        ("/tensors/1/parts/0/words/offset", json!(0), "`gate_up`: bytes at 0 instead of 512"),
        ("/tensors/1/parts/0/scales", Value::Null, "`gate_up`: scales: none, expected 2048"),
        ("/tensors/1/parts", json!([]), "`gate_up`: its parts hold 0 of 128 rows"),
    ];
    for (pointer, value, expected) in cases {
        let mut json = good.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        let error = parse(&json).unwrap_err().to_string();
        assert!(error.starts_with("manifest.json: "), "{error}");
        assert!(error.contains(expected), "{pointer}: {error}");
    }
    let mut json = good.clone();
    json["extra"] = json!(1);
    assert!(parse(&json).unwrap_err().to_string().contains("unknown field `extra`"));
    for n in [0, 1, 50, text.len() / 2] {
        let error = Manifest::parse(&text[..n]).unwrap_err();
        assert!(matches!(error, Error::Manifest { .. }), "{error}");
    }
}

#[test]
fn formats_are_those_of_the_classes() {
    let formats: Vec<_> = parse(&folder().1).unwrap().tensors.iter().map(|t| t.format).collect();
    use WeightFormat::{F32, Q4, Q8};
    assert_eq!(formats, [F32, Q4, Q8, Q4]);
}

/// Every place in a document.
fn pointers(json: &Value, at: String, out: &mut Vec<String>) {
    match json {
        Value::Object(map) => map.iter().for_each(|(k, v)| pointers(v, format!("{at}/{k}"), out)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| pointers(v, format!("{at}/{i}"), out));
        }
        _ => {}
    }
    out.push(at);
}

proptest! {
    #[test]
    fn changed_manifests_never_panic(
        place: prop::sample::Index,
        value in prop_oneof![
            any::<u64>().prop_map(|n| json!(n)),
            (0_u64..600).prop_map(|n| json!(n)),
            any::<i64>().prop_map(|n| json!(n)),
            Just(json!(null)), Just(json!([])), Just(json!({})), Just(json!("q8")),
        ],
    ) {
        let (mut files, mut json) = folder().clone();
        let mut all = Vec::new();
        pointers(&json, String::new(), &mut all);
        *json.pointer_mut(&all[place.index(all.len())]).unwrap() = value;
        files.insert(MANIFEST_FILE, json.to_string().into_bytes());
        if let Ok(open) = block_on(Packed::open(&files)) {
            for tensor in &open.manifest().tensors {
                values(&open, tensor);
            }
        }
    }
}

/// Files whose every answer is one byte short.
struct Cut(MemoryFiles);

impl Files for Cut {
    type Source = Vec<u8>;

    async fn open(&self, name: &str) -> std::io::Result<Option<Vec<u8>>> {
        let source = self.0.open(name).await?;
        Ok(source.map(|bytes| match name.ends_with(".bin") {
            true => bytes[..bytes.len() - 1].to_vec(),
            false => bytes.to_vec(),
        }))
    }
}

#[test]
fn every_truncated_shard_is_listed() {
    let out = packed(4, 8, 2048);
    let n = fs::read_dir(out.path()).unwrap().count() - 2;
    let error = block_on(Packed::open(&Cut(in_memory(out.path())))).unwrap_err();
    assert!(matches!(&error, Error::Damaged(report) if report.files.len() == n), "{error}");
}
