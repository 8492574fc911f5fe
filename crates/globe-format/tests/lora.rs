//! Adapters merged here against what PEFT merges, and adapters that cannot be.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use globe_format::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, Adapter, Checkpoint, Error, Folder, Mapped, MemoryFiles,
    Merged, OutTensor, SourceTensors, write_safetensors,
};
use pollster::block_on;
use serde_json::{Value, json};

/// PEFT multiplies in another order; the values are below 2.
const TOL: f32 = 5e-7;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lora")
}

fn open(folder: &str, file: &str) -> Checkpoint<Mapped> {
    let folder = Folder::open(golden().join(folder)).unwrap();
    block_on(Checkpoint::open_file(&folder, file)).unwrap()
}

fn keep(_: &str) -> Option<String> {
    None
}

#[test]
fn sums_are_those_of_peft() {
    for (case, n_matrices) in [("plain", 4), ("rslora", 2), ("patterns", 4)] {
        let folder = Folder::open(golden().join(case)).unwrap();
        let adapter = block_on(Adapter::open(&folder, keep)).unwrap();
        assert_eq!(adapter.n_matrices(), n_matrices);
        let merged = Merged::new(open("", "base.safetensors"), adapter).unwrap();
        let (base, expected) = (open("", "base.safetensors"), open(case, "merged.safetensors"));
        assert_eq!(merged.tensor_names(), base.tensor_names());
        for name in base.names() {
            let shape = merged.shape(name).unwrap();
            let (n, cols) = (shape.iter().product(), shape[1]);
            let before = block_on(base.read_f32(name)).unwrap();
            let after = match expected.info(name) {
                Some(_) => block_on(expected.read_f32(name)).unwrap(),
                None => before,
            };
            for range in [0..n, 0..cols, 3 * cols..7 * cols, 5..n - 3, cols + 2..cols + 4, 9..9] {
                let got = block_on(merged.read_range(name, range.clone())).unwrap();
                assert_eq!(got.len(), range.len());
                for (got, expected) in got.iter().zip(&after[range.clone()]) {
                    assert!((got - expected).abs() <= TOL, "{case} {name} {range:?}");
                }
            }
        }
    }
}

#[test]
fn an_adapter_changes_what_it_is_for() {
    let expected = open("plain", "merged.safetensors");
    let base = open("", "base.safetensors");
    let name = "layers.0.q_proj.weight";
    let [before, after] = [&base, &expected].map(|c| block_on(c.read_f32(name)).unwrap());
    let largest = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest > 1000.0 * TOL, "the golden shows nothing: {largest}");
}

/// An adapter with these factors; `rank` 0 leaves one out.
fn adapter(factors: &[(&str, [usize; 2])], change: impl Fn(&mut Value)) -> MemoryFiles {
    let tensors: Vec<_> = factors
        .iter()
        .map(|(name, shape)| {
            let values = vec![0.5; shape.iter().product()];
            OutTensor::f32(format!("base_model.model.{name}.weight"), shape, &values)
        })
        .collect();
    let mut config = json!({ "peft_type": "LORA", "lora_alpha": 8, "r": 2 });
    change(&mut config);
    MemoryFiles::from_iter([
        (ADAPTER_CONFIG_FILE, config.to_string().into_bytes()),
        (ADAPTER_FILE, write_safetensors(&tensors, &BTreeMap::new()).unwrap()),
    ])
}

const GOOD: [(&str, [usize; 2]); 2] =
    [("layers.0.q_proj.lora_A", [2, 12]), ("layers.0.q_proj.lora_B", [20, 2])];

#[test]
fn another_base_is_one_error_that_lists_all() {
    let files = adapter(
        &[
            GOOD[0],
            GOOD[1],
            ("layers.1.q_proj.lora_A", [2, 13]),
            ("layers.1.q_proj.lora_B", [20, 2]),
            ("layers.7.q_proj.lora_A", [2, 12]),
            ("layers.7.q_proj.lora_B", [20, 2]),
        ],
        |_| {},
    );
    let adapter = block_on(Adapter::open(&files, keep)).unwrap();
    let error = Merged::new(open("", "base.safetensors"), adapter).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the adapter is for another base: 2 of its 3 matrices do not fit:\
         \n  `layers.1.q_proj.weight`: adapter [20, 13], base [20, 12]\
         \n  `layers.7.q_proj.weight` is not in the base; nearest is `layers.1.q_proj.weight`"
    );
}

#[test]
fn names_of_the_base_can_be_mapped() {
    let files = adapter(&[("model.x.q.lora_A", [2, 12]), ("model.x.q.lora_B", [20, 2])], |_| {});
    let rename = |name: &str| (name == "model.x.q.weight").then(|| "layers.0.q_proj.weight".into());
    let adapter = block_on(Adapter::open(&files, rename)).unwrap();
    let merged = Merged::new(open("", "base.safetensors"), adapter).unwrap();
    let before = block_on(open("", "base.safetensors").read_f32("layers.0.q_proj.weight")).unwrap();
    let after = block_on(merged.read_range("layers.0.q_proj.weight", 0..240)).unwrap();
    // alpha / r * (0.5 * 0.5 + 0.5 * 0.5)
    assert!(before.iter().zip(&after).all(|(a, b)| (b - a - 2.0).abs() <= TOL));
}

#[test]
fn what_cannot_be_merged_is_named() {
    let error = |change: &dyn Fn(&mut Value)| {
        let files = adapter(&GOOD, change);
        let error = block_on(Adapter::open(&files, keep)).unwrap_err();
        assert!(matches!(error, Error::AdapterConfig { .. }), "{error}");
        error.to_string()
    };
    for (field, value) in [
        ("fan_in_fan_out", json!(true)),
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("layer_replication", json!([[0, 4]])),
        ("init_lora_weights", json!("pissa")),
        ("bias", json!("all")),
        ("peft_type", json!("IA3")),
        ("lora_alpha", json!("8")),
        ("alpha_pattern", json!({ "layers.[01]": 4 })),
        ("alpha_pattern", json!(3)),
    ] {
        let error = error(&|config| config[field] = value.clone());
        assert!(error.starts_with(&format!("adapter_config.json: {field}: ")), "{error}");
    }
    for harmless in ["use_dora", "modules_to_save", "fan_in_fan_out"] {
        let files = adapter(&GOOD, |config| config[harmless] = Value::Null);
        block_on(Adapter::open(&files, keep)).unwrap();
    }
}

#[test]
fn damaged_adapters_list_every_problem() {
    let files = adapter(
        &[
            GOOD[0],
            ("layers.1.q_proj.lora_A", [2, 12]),
            ("layers.1.q_proj.lora_B", [20, 3]),
            ("embed.lora_embedding_A", [2, 9]),
        ],
        |_| {},
    );
    let error = block_on(Adapter::open(&files, keep)).unwrap_err().to_string();
    assert!(error.starts_with("adapter_model.safetensors: 3 problems:"), "{error}");
    assert!(
        error.contains("lora_A.weight` has no `base_model.model.layers.0.q_proj.lora_B.weight`")
    );
    assert!(error.contains("has rank 2, its partner 3"), "{error}");
    assert!(error.contains("lora_embedding_A.weight` is no factor of a matrix"), "{error}");

    let error = block_on(Adapter::open(&adapter(&[], |_| {}), keep)).unwrap_err();
    assert!(error.to_string().contains("it holds no tensors"), "{error}");
    let error = block_on(Adapter::open(&MemoryFiles::default(), keep)).unwrap_err();
    assert_eq!(error.to_string(), "adapter_config.json: not found in the model folder");
    let mut files = adapter(&GOOD, |_| {});
    files.insert(ADAPTER_FILE, fs::read(golden().join("base.safetensors")).unwrap());
    let error = block_on(Adapter::open(&files, keep)).unwrap_err().to_string();
    assert!(error.contains("4 problems"), "{error}");
}
