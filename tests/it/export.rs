//! `globe export` as its users see it: a folder that loads, or no folder.

use std::fs;
use std::path::{Path, PathBuf};

use globe_format::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, Checkpoint, Folder, Mapped, OutTensor, SINGLE_FILE,
    write_safetensors,
};
use globe_tests::golden_root;
use globe_train::checkpoint::{Adapter, RealDisk, Store, Writer};
use pollster::block_on;
use tempfile::tempdir;

use crate::cli::{Run, globe, names};
use crate::convert::converted;

/// The adapter that was trained for the golden `tied`.
const ADAPTER: &str = "training/tied";

fn export(from: &str, adapter: &str, out: &Path) -> Run {
    globe(&format!("export --from {from} --adapter {adapter} --out {} --quiet", out.display()))
}

fn open(folder: &Path) -> Checkpoint<Mapped> {
    block_on(Checkpoint::open(&Folder::open(folder).unwrap())).unwrap()
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).unwrap()
}

#[test]
fn an_export_is_a_checkpoint_that_globe_and_others_load() {
    let parent = tempdir().unwrap();
    let [out, again] = ["out", "again"].map(|name| parent.path().join(name));
    let run = export("tied", ADAPTER, &out).expect(0);
    assert!(run.stdout.contains(" tensors, 14 of them merged, "), "{}", run.stdout);
    assert_eq!(run.stderr, "");
    let tied = golden_root().join("tied");
    for name in names(&out).iter().filter(|name| *name != SINGLE_FILE) {
        assert_eq!(read(&out, name), read(&tied, name), "{name}");
    }
    for name in ["config.json", "tokenizer.json", "chat_template.json", "preprocessor_config.json"]
    {
        assert!(out.join(name).exists(), "{name}");
    }
    let (base, written) = (open(&tied), open(&out));
    assert!(base.names().eq(written.names()));
    globe(&format!("inspect {}", out.display())).expect(0);

    fs::create_dir(&again).unwrap();
    export("tied", ADAPTER, &again).expect(0);
    assert_eq!(names(&again), names(&out));
    assert!(read(&again, SINGLE_FILE) == read(&out, SINGLE_FILE));
    assert_eq!(names(parent.path()), ["again", "out"]);
}

/// Packing the export and packing base and adapter differ by the rounding to bf16 alone.
#[test]
fn logits_are_those_of_the_converted_adapter() {
    let parent = tempdir().unwrap();
    let out = parent.path().join("out");
    export("tied", ADAPTER, &out).expect(0);
    let packed = converted("tied", &format!("--bits 16 --vision-bits 16 --adapter {ADAPTER}"));
    let logits = |model: &str| {
        let line = format!("logits --model {model} --prompt Where? --tokens 0 --device cpu --json");
        let json: serde_json::Value = serde_json::from_str(&globe(&line).expect(0).stdout).unwrap();
        let logits = json["last_logits"].as_array().unwrap().iter();
        logits.map(|logit| logit.as_f64().unwrap()).collect::<Vec<_>>()
    };
    let largest =
        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0_f64, f64::max);
    let exported = logits(out.to_str().unwrap());
    let merged = logits(packed.path().to_str().unwrap());
    let base = logits("tied");
    let (rounding, adapter) = (largest(&exported, &merged), largest(&exported, &base));
    assert!(rounding < 0.05 * adapter, "{rounding} and {adapter}");
}

/// A checkpoint of `globe train` with the adapter of the goldens.
fn training_checkpoint(root: &Path) -> PathBuf {
    let adapter = Adapter::open(&golden_root().join(ADAPTER)).unwrap();
    let files = adapter.to_files().unwrap();
    let mut files = files.into_iter().map(|(name, bytes)| (format!("adapter/{name}"), bytes));
    let write = |to: &mut Writer| files.try_for_each(|(name, bytes)| to.file(&name, &bytes));
    Store::new(root, 0).save(&mut RealDisk, 10, write).unwrap()
}

#[test]
fn checkpoints_of_training_are_adapters_too() {
    let parent = tempdir().unwrap();
    let checkpoint = training_checkpoint(&parent.path().join("checkpoints"));
    let [from_peft, from_step] = ["peft", "step"].map(|name| parent.path().join(name));
    export("tied", ADAPTER, &from_peft).expect(0);
    export("tied", checkpoint.to_str().unwrap(), &from_step).expect(0);
    assert!(read(&from_peft, SINGLE_FILE) == read(&from_step, SINGLE_FILE));
    converted("tied", &format!("--adapter {}", checkpoint.display()));

    let config = checkpoint.join("adapter").join(ADAPTER_CONFIG_FILE);
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("8", "9")).unwrap();
    let out = parent.path().join("damaged");
    let error = export("tied", checkpoint.to_str().unwrap(), &out).expect(2).stderr;
    assert!(error.contains("adapter/adapter_config.json: its SHA-256 is not that"), "{error}");
}

#[test]
fn what_cannot_be_exported_is_refused_and_nothing_is_written() {
    let parent = tempdir().unwrap();
    let out = parent.path().join("out");
    let refused = |from: &str, adapter: &str, expected: &str| {
        let error = export(from, adapter, &out).expect(2).stderr;
        assert!(error.contains(expected), "{error}");
        assert!(!names(parent.path()).iter().any(|name| name.starts_with("out")), "{error}");
    };
    let other = "the adapter is for another base: 14 of its 14 matrices do not fit";
    refused("window56", ADAPTER, other);
    refused("tied", "tied", "tied: no adapter_config.json, here or in adapter/");
    refused("absent", ADAPTER, "absent");
    refused("tied", "absent", "absent");
    let packed = converted("tied", "");
    let rounded = "a packed folder, whose weights are rounded to 4 bits; pass the Hugging Face \
                   folder that it was converted from, with model.safetensors";
    refused(packed.path().to_str().unwrap(), ADAPTER, rounded);

    let full = parent.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("parameters.safetensors"), "").unwrap();
    refused("tied", full.to_str().unwrap(), "parameters.safetensors");
    let line = format!("convert --from tied --adapter {} --out {}", full.display(), out.display());
    let error = globe(&line).expect(2).stderr;
    assert!(error.contains("all weights, not of an adapter; `globe export`"), "{error}");

    fs::create_dir(&out).unwrap();
    fs::write(out.join("thesis.txt"), "mine").unwrap();
    let error = export("tied", ADAPTER, &out).expect(2).stderr;
    assert!(error.contains("the output folder holds `thesis.txt`"), "{error}");
    assert_eq!(names(&out), ["thesis.txt"]);
}

/// An adapter of the head, which a base with tied embeddings does not have of its own.
#[test]
fn the_head_of_a_tied_base_cannot_be_changed() {
    let parent = tempdir().unwrap();
    let (lora, out) = (parent.path().join("lora"), parent.path().join("out"));
    fs::create_dir(&lora).unwrap();
    let factor = |which: &str, shape: [usize; 2]| {
        let name = format!("base_model.model.lm_head.lora_{which}.weight");
        OutTensor::f32(name, &shape, &vec![0.5; shape[0] * shape[1]])
    };
    let factors = [factor("A", [1, 96]), factor("B", [435, 1])];
    fs::write(lora.join(ADAPTER_FILE), write_safetensors(&factors, &Default::default()).unwrap())
        .unwrap();
    fs::write(lora.join(ADAPTER_CONFIG_FILE), r#"{"peft_type":"LORA","lora_alpha":1}"#).unwrap();
    let error = export("tied", lora.to_str().unwrap(), &out).expect(2).stderr;
    assert!(error.contains("which this base shares with the embeddings"), "{error}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_no_folder() {
    use crate::convert::{adapter, interrupted, large};

    let (from, parent) = (tempdir().unwrap(), tempdir().unwrap());
    let (lora, out) = (parent.path().join("lora"), parent.path().join("out"));
    large(from.path(), 400_000);
    fs::create_dir(&lora).unwrap();
    adapter(&lora, "model.language_model.layers.0.mlp.down_proj", [48, 101]);
    let sign = parent.path().join("out.partial/config.json");
    let line = format!(
        "export --from {} --adapter {} --out {} --shard-mb 8",
        from.path().display(),
        lora.display(),
        out.display()
    );
    // A fast disk may be done before the signal arrives.
    let mut runs = (0..5).map(|_| {
        let run = interrupted(&line, &sign);
        let is_interrupted = run.code == Some(130);
        assert_eq!(
            names(parent.path()),
            if is_interrupted { &["lora"][..] } else { &["lora", "out"] }
        );
        let _ = fs::remove_dir_all(&out);
        (is_interrupted, run.stderr)
    });
    let stderr = runs.find(|(is_interrupted, _)| *is_interrupted).unwrap().1;
    assert!(stderr.contains("interrupted; nothing was written"), "{stderr}");
    drop(runs);

    globe(&line).expect(0);
    assert!(names(&out).contains(&"model.safetensors.index.json".to_owned()));
    assert!(open(&out).names().eq(open(from.path()).names()));
}
