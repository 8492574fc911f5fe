//! GGUF files of the `gguf` package read back, packed without loss, and damaged in every way.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use globe_format::{
    Checkpoint, Error, Folder, Mapped, SourceTensors, WeightFormat,
    gguf::{Gguf, GgufModel, GgufType, GgufValue},
    quantize,
};
use half::f16;
use pollster::block_on;
use proptest::prelude::*;
use serde_json::{Value, json};

fn folder() -> Folder {
    Folder::open(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gguf")).unwrap()
}

fn open(file: &str) -> Gguf<Mapped> {
    block_on(Gguf::open(&folder(), file)).unwrap()
}

fn bytes(file: &str) -> Vec<u8> {
    fs::read(folder().path().join(file)).unwrap()
}

fn model() -> GgufModel<Mapped> {
    GgufModel::new(open("text.gguf"), open("mmproj.gguf")).unwrap()
}

#[test]
fn every_block_type_is_read_as_the_package_does() {
    let file = open("blocks.gguf");
    assert_eq!(file.metadata()["general.alignment"], GgufValue::Unsigned(64));
    let mut n_types = 0;
    for name in file.names().filter(|name| !name.ends_with(".values")) {
        let (kind, shape) = file.tensor(name).unwrap();
        assert_eq!((kind.name(), shape), (name, &[2, 256][..]));
        let expected = block_on(file.read_range(&format!("{name}.values"), 0..512)).unwrap();
        assert!(expected.iter().any(|x| *x != 0.0));
        for range in [0..512, 0..256, 256..512, 33..35, 100..400, 511..512, 7..7] {
            let got = block_on(file.read_range(name, range.clone())).unwrap();
            assert_eq!(got, expected[range], "{name}");
        }
        n_types += 1;
    }
    assert_eq!(n_types, 10);
}

#[test]
fn a_model_has_the_tensors_of_its_checkpoint() {
    let model = model();
    let expected = block_on(Checkpoint::open_file(&folder(), "expected.safetensors")).unwrap();
    assert_eq!(model.tensor_names(), expected.names().collect::<Vec<_>>());
    for name in expected.names() {
        let shape = model.shape(name).unwrap();
        assert_eq!(shape, expected.info(name).unwrap().shape, "{name}");
        let n: usize = shape.iter().product();
        let values = block_on(expected.read_f32(name)).unwrap();
        for range in [0..n, 0..1, n / 3..n / 2, n - 1..n, 5..n - 5, n / 2..n / 2] {
            let got = block_on(model.read_range(name, range.clone())).unwrap();
            assert_eq!(got, values[range], "{name}");
        }
    }
    assert_eq!(model.shape("model.layers.0.nothing.weight"), None);
    let error = block_on(model.read_range("lm_head.weigth", 0..1)).unwrap_err();
    assert!(error.to_string().contains("nearest is `lm_head.weight`"), "{error}");
    let error = block_on(model.read_range("visual.patch_embed.proj.weight", 0..9999)).unwrap_err();
    assert!(matches!(error, Error::ElementRange { n_elements: 1536, .. }), "{error}");
}

/// The nibbles and the scale of every block of a Q4_0 matrix, read from the bytes.
fn q4_0_blocks(file: &str, name: &str) -> Vec<(f16, Vec<i8>)> {
    let (values, gguf) = (bytes(file), open(file));
    let (kind, shape) = gguf.tensor(name).unwrap();
    assert_eq!(kind, GgufType::Q4_0);
    let n: usize = shape.iter().product();
    // The reader does not tell where data is; the scale and nibbles of the file are unique.
    let all = block_on(gguf.read_range(name, 0..n)).unwrap();
    let find = |expected: &[f32]| {
        values.windows(18).find_map(|block| {
            let scale = f16::from_le_bytes([block[0], block[1]]);
            let (low, high) =
                (block[2..].iter().map(|b| b & 0xf), block[2..].iter().map(|b| b >> 4));
            let q: Vec<i8> = low.chain(high).map(|q| q as i8 - 8).collect();
            let same = q.iter().zip(expected).all(|(q, x)| f32::from(*q) * scale.to_f32() == *x);
            same.then_some((scale, q))
        })
    };
    all.chunks(32).map(|block| find(block).unwrap()).collect()
}

#[test]
fn q4_0_keeps_its_nibbles_and_scales() {
    let name = "blk.0.attn_q.weight";
    let file = open("text.gguf");
    let values = block_on(file.read_range(name, 0..32 * 32)).unwrap();
    let packed = quantize(WeightFormat::Q4, &values, 32, 32).unwrap();
    for (row, (scale, q)) in q4_0_blocks("text.gguf", name).into_iter().enumerate() {
        assert_eq!(packed.scales[8 * row], scale.to_bits());
        let words = &packed.words[4 * row..4 * row + 4];
        for (v, q) in q.into_iter().enumerate() {
            let nibble = words[v / 8] >> (8 * (v % 4) + if v % 8 < 4 { 0 } else { 4 }) & 0xf;
            assert_eq!(nibble as i8 - 8, q, "row {row} value {v}");
        }
    }
}

#[test]
fn four_and_eight_bit_types_are_packed_without_loss() {
    let file = open("blocks.gguf");
    for (name, format) in
        [("Q4_0", WeightFormat::Q4), ("Q8_0", WeightFormat::Q8), ("F16", WeightFormat::F16)]
    {
        let values = block_on(file.read_range(name, 0..512)).unwrap();
        let packed = quantize(format, &values, 2, 256).unwrap();
        let back = globe_format::dequantize(format, &packed.words, &packed.scales, 2, 256).unwrap();
        assert_eq!(back, values, "{name}");
    }
}

fn small_files() -> BTreeMap<String, Vec<u8>> {
    model().small_files().unwrap().into_iter().collect()
}

#[test]
fn small_files_say_what_the_metadata_says() {
    let files = small_files();
    let json = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
    let config = json("config.json");
    for (pointer, expected) in [
        ("/model_type", json!("qwen2_5_vl")),
        ("/vocab_size", json!(405)),
        ("/hidden_size", json!(32)),
        ("/num_key_value_heads", json!(1)),
        ("/rms_norm_eps", json!(1e-6)),
        ("/rope_theta", json!(1e6)),
        ("/rope_scaling/mrope_section", json!([2, 3, 3])),
        ("/tie_word_embeddings", json!(false)),
        ("/image_token_id", json!(388)),
        ("/eos_token_id", json!(378)),
        ("/vision_config/fullatt_block_indexes", json!([1, 3])),
        ("/vision_config/out_hidden_size", json!(32)),
        ("/vision_config/window_size", json!(112)),
    ] {
        assert_eq!(config.pointer(pointer), Some(&expected), "{pointer}");
    }
    assert_eq!(json("generation_config.json")["eos_token_id"], json!([378, 376]));
    let preprocessor = json("preprocessor_config.json");
    for (i, expected) in [0.481_454_66, 0.457_827_5, 0.408_210_73].iter().enumerate() {
        let got = preprocessor["image_mean"][i].as_f64().unwrap();
        assert!((got - expected).abs() < 1e-7, "{got}: single precision, as it is stored");
    }
    assert_eq!((&preprocessor["patch_size"], &preprocessor["merge_size"]), (&json!(4), &json!(2)));
    assert!(files["chat_template.jinja"].starts_with(b"{% for m in messages %}"));
    assert_eq!(files, small_files(), "the same each time");
}

#[test]
fn the_tokenizer_is_the_one_that_was_stored() {
    let original =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/window56/tokenizer.json");
    let original: Value = serde_json::from_slice(&fs::read(original).unwrap()).unwrap();
    let made: Value = serde_json::from_slice(&small_files()["tokenizer.json"]).unwrap();
    for pointer in [
        "/model/vocab",
        "/model/merges",
        "/normalizer",
        "/model/type",
        "/added_tokens",
        "/pre_tokenizer/pretokenizers/0",
    ] {
        assert_eq!(made.pointer(pointer), original.pointer(pointer), "{pointer}");
    }
}

#[test]
fn files_of_other_models_are_refused() {
    let error = GgufModel::new(open("mmproj.gguf"), open("text.gguf")).unwrap_err().to_string();
    let expected = "mmproj.gguf: general.architecture: `clip`, expected `qwen2vl` of Qwen2.5-VL";
    assert_eq!(error, expected);
    let error = GgufModel::new(open("text.gguf"), open("text.gguf")).unwrap_err().to_string();
    assert!(error.starts_with("text.gguf: general.architecture: `qwen2vl`, expected `clip`"));

    let open = |bytes| block_on(Gguf::from_source("t.gguf", bytes)).unwrap();
    let other = open(replaced("mmproj.gguf", b"qwen2.5vl_merger", b"qwen3.5vl_merger"));
    let error = GgufModel::new(open(bytes("text.gguf")), other).unwrap_err().to_string();
    assert!(error.starts_with("t.gguf: clip.projector_type: `qwen3.5vl_merger`"), "{error}");

    let text = replaced("text.gguf", b"tokenizer.ggml.pre", b"tokenizer.ggml.prx");
    let model = GgufModel::new(open(text), open(bytes("mmproj.gguf"))).unwrap();
    let error = model.small_files().unwrap_err().to_string();
    assert_eq!(error, "t.gguf: tokenizer.ggml.pre: absent");
}

/// A file with some bytes changed wherever they stand.
fn replaced(file: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes(file);
    for at in 0..bytes.len() - from.len() {
        if &bytes[at..at + from.len()] == from {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

fn parse(bytes: Vec<u8>) -> Result<Gguf<Vec<u8>>, Error> {
    block_on(Gguf::from_source("x.gguf", bytes))
}

#[test]
fn damaged_heads_are_named() {
    let good = bytes("blocks.gguf");
    let error = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        parse(bytes).unwrap_err().to_string()
    };
    assert!(error(&|b| b[0] = 0).contains("header: does not start with GGUF"));
    assert!(error(&|b| b[4] = 1).contains("version: 1, only 2 and 3 are read"));
    assert!(error(&|b| b[4..8].reverse()).contains("big-endian"));
    assert!(error(&|b| b.truncate(20)).contains("header: the head does not end in 20 bytes"));
    assert!(error(&|b| b.truncate(b.len() - 64)).contains("truncated, download it again"));
    assert!(error(&|b| b[15] = 0x7f).contains("the head does not end"), "a count of tensors");
    // The type of the first tensor: 30 follows its name and two dimensions of 8 bytes.
    let kind = good.windows(4).position(|w| w == b"BF16").unwrap() + 4 + 4 + 16;
    let error = error(&|b| b[kind] = 35);
    assert!(error.contains("1 tensors of a type that is not read (F32, F16, Q4_0"), "{error}");
    assert!(error.contains("`BF16` has type 35"), "{error}");
}

/// Reads everything; errors are fine, panics are not.
fn exercise(bytes: Vec<u8>) {
    let Ok(file) = parse(bytes) else { return };
    for name in file.names() {
        let (_, shape) = file.tensor(name).unwrap();
        let n = shape.iter().product();
        let _ = block_on(file.read_range(name, 0..n));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        exercise([b"GGUF\x03\0\0\0".as_slice(), &bytes].concat());
    }

    #[test]
    fn flipped_bytes(place in 0_usize..2000, value: u8, cut in 0_usize..26_000) {
        let mut blocks = bytes("blocks.gguf");
        blocks[place] = value;
        exercise(blocks.clone());
        blocks.truncate(cut);
        exercise(blocks);
    }

    #[test]
    fn flipped_metadata(place in 0_usize..9000, value: u8) {
        let mut text = bytes("text.gguf");
        text[place] = value;
        let Ok(text) = parse(text) else { return Ok(()) };
        let Ok(model) = GgufModel::new(text, parse(bytes("mmproj.gguf")).unwrap()) else {
            return Ok(());
        };
        let _ = model.small_files();
        for name in model.tensor_names() {
            if let Some(shape) = model.shape(&name) {
                let n: usize = shape.iter().product();
                let _ = block_on(model.read_range(&name, 0..n.min(1 << 20)));
            }
        }
    }
}

#[test]
fn a_model_whose_head_is_its_embedding_stores_none() {
    // Other names end so too; this one is as long as its count says.
    let (head, other) = (b"\x0d\0\0\0\0\0\0\0output.weight", b"\x0d\0\0\0\0\0\0\0outpux.weight");
    let text = parse(replaced("text.gguf", head, other)).unwrap();
    let tied = GgufModel::new(text, parse(bytes("mmproj.gguf")).unwrap()).unwrap();
    assert_eq!(tied.shape("lm_head.weight"), None);
    assert!(!tied.tensor_names().iter().any(|name| name == "lm_head.weight"));
    let files: BTreeMap<String, Vec<u8>> = tied.small_files().unwrap().into_iter().collect();
    let config: Value = serde_json::from_slice(&files["config.json"]).unwrap();
    assert_eq!(config["tie_word_embeddings"], json!(true));
}

#[test]
fn one_of_several_files_is_refused() {
    let mut text = bytes("text.gguf");
    // One more entry, 16 bits wide: version, then how many tensors and entries there are, then these.
    let n_entries = u64::from_le_bytes(text[16..24].try_into().unwrap()) + 1;
    text[16..24].copy_from_slice(&n_entries.to_le_bytes());
    let entry =
        [&11u64.to_le_bytes()[..], b"split.count", &2u32.to_le_bytes(), &3u16.to_le_bytes()];
    text.splice(24..24, entry.concat());
    text.extend([0; 64]);
    let model = GgufModel::new(parse(text).unwrap(), parse(bytes("mmproj.gguf")).unwrap());
    let error = model.unwrap_err().to_string();
    assert!(error.contains("split.count: one of several files; join them"), "{error}");
}
