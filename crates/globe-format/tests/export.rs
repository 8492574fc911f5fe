//! Exported goldens, value by value and byte by byte.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use globe_format::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, Adapter, Checkpoint, Dtype, Error, Folder, INDEX_FILE,
    Mapped, MemoryFiles, Merged, OutTensor, SINGLE_FILE,
    export::{ExportJob, Exported, export},
    write_safetensors,
};
use half::bf16;
use pollster::block_on;
use tempfile::tempdir;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn open(folder: &Path) -> Checkpoint<Mapped> {
    block_on(Checkpoint::open(&Folder::open(folder).unwrap())).unwrap()
}

/// The base predates transformers' present names.
fn canonical(name: &str) -> Option<String> {
    Some(format!("model.{}", name.strip_prefix("model.language_model.")?))
}

/// Exports the tied golden with the adapter that was trained for it.
fn export_tied(out: &Path, shard_bytes: u64) -> Exported {
    let adapter = Folder::open(golden().join("training/tied")).unwrap();
    let adapter = block_on(Adapter::open(&adapter, canonical)).unwrap();
    let merged = Merged::new(open(&golden().join("tied")), adapter).unwrap();
    let config = fs::read(golden().join("tied/config.json")).unwrap();
    let job = ExportJob { files: vec![("config.json".into(), config)], shard_bytes };
    let (mut seen, mut sums) = (0, Vec::new());
    let exported = block_on(export(&job, &merged, out, &mut |done, all| {
        assert!(seen < done && done <= all);
        seen = done;
        sums.push(all);
        true
    }));
    let exported = exported.unwrap();
    assert_eq!((seen, sums[0]), (exported.total_bytes, exported.total_bytes));
    exported
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let read = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    entries.map(read).collect()
}

/// `W + alpha / r * B A` in f64, each element rounded to bf16 by comparing with its neighbours.
fn expected(base: &[f32], (a, b): (&[f32], &[f32]), inputs: usize) -> Vec<bf16> {
    let (rank, alpha) = (4, 8.0);
    let sum = |i: usize| {
        let (row, col) = (i / inputs, i % inputs);
        let product = |k: usize| f64::from(b[row * rank + k]) * f64::from(a[k * inputs + col]);
        f64::from(base[i]) + alpha / rank as f64 * (0..rank).map(product).sum::<f64>()
    };
    (0..base.len()).map(|i| nearest(sum(i))).collect()
}

/// The nearest bf16, searched for.
fn nearest(value: f64) -> bf16 {
    let guess = bf16::from_f64(value).to_bits();
    let candidates = [guess.wrapping_sub(1), guess, guess.wrapping_add(1)].map(bf16::from_bits);
    let distance = |candidate: &bf16| (candidate.to_f64() - value).abs();
    let closest = candidates.into_iter().filter(|c| c.is_finite());
    closest.min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap()
}

#[test]
fn merged_values_are_rounded_sums_and_the_rest_is_untouched() {
    let parent = tempdir().unwrap();
    let out = parent.path().join("out");
    let exported = export_tied(&out, 4 << 30);
    let (base, written) = (open(&golden().join("tied")), open(&out));
    let factors = Folder::open(golden().join("training/tied")).unwrap();
    let factors = block_on(Checkpoint::open_file(&factors, ADAPTER_FILE)).unwrap();

    let mut n_merged = 0;
    assert_eq!(written.names().collect::<Vec<_>>(), base.names().collect::<Vec<_>>());
    for name in base.names() {
        let (before, after) = (base.info(name).unwrap(), written.info(name).unwrap());
        assert_eq!((before.dtype, &before.shape), (after.dtype, &after.shape), "{name}");
        let [old, new] = [&base, &written].map(|c| block_on(c.read_bytes(name)).unwrap());
        let module = name.strip_prefix("model.").and_then(|rest| rest.strip_suffix(".weight"));
        let module = module.unwrap_or("none");
        let factor = |which: &str| {
            format!("base_model.model.model.language_model.{module}.lora_{which}.weight")
        };
        if factors.info(&factor("A")).is_none() {
            assert_eq!(old, new, "{name}");
            continue;
        }
        n_merged += 1;
        let [a, b] = ["A", "B"].map(|which| block_on(factors.read_f32(&factor(which))).unwrap());
        let weight = block_on(base.read_f32(name)).unwrap();
        let expected = expected(&weight, (&a, &b), before.shape[1]);
        let bytes: Vec<u8> = expected.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert!(new == bytes, "{name}");
        assert!(new != old, "{name}: the adapter changes nothing");
    }
    assert_eq!((exported.n_merged, n_merged, exported.n_shards), (14, 14, 1));
    assert_eq!(exported.n_tensors, base.names().len());
    let names: Vec<_> = contents(&out).into_keys().collect();
    assert_eq!(names, ["config.json", SINGLE_FILE]);
    assert_eq!(written.metadata()["format"], "pt");
}

#[test]
fn a_second_run_gives_the_same_bytes_and_shards_the_same_values() {
    let parent = tempdir().unwrap();
    let [once, again, cut] = ["once", "again", "cut"].map(|name| parent.path().join(name));
    export_tied(&once, 4 << 30);
    export_tied(&again, 4 << 30);
    assert!(contents(&once) == contents(&again));

    let shard_bytes = 100 << 10;
    let exported = export_tied(&cut, shard_bytes);
    let files = contents(&cut);
    assert!(exported.n_shards > 3 && files.len() == exported.n_shards + 2);
    for i in 1..=exported.n_shards {
        let file = &files[&format!("model-{i:05}-of-{:05}.safetensors", exported.n_shards)];
        assert!(file.len() < shard_bytes as usize + (8 << 10), "{}", file.len());
    }
    let index: serde_json::Value = serde_json::from_slice(&files[INDEX_FILE]).unwrap();
    assert_eq!(index["metadata"]["total_size"], exported.total_bytes);
    let (whole, cut) = (open(&once), open(&cut));
    assert_eq!(whole.names().collect::<Vec<_>>(), cut.names().collect::<Vec<_>>());
    for name in whole.names() {
        let [a, b] = [&whole, &cut].map(|c| block_on(c.read_bytes(name)).unwrap());
        assert_eq!(a, b, "{name}");
    }
}

/// One matrix of `dtype` with an adapter of rank 2, whose config holds `more`.
fn small(
    dtype: Dtype,
    data: Vec<u8>,
    factor: f32,
    more: &str,
) -> Merged<Checkpoint<Vec<u8>>, std::sync::Arc<Vec<u8>>> {
    let weight = OutTensor { name: "w.weight".into(), dtype, shape: vec![2, 2], data: data.into() };
    let other = OutTensor {
        name: "codes".into(),
        dtype: Dtype::I64,
        shape: vec![3],
        data: vec![0xff; 24].into(),
    };
    let nothing =
        OutTensor { name: "nothing".into(), dtype, shape: vec![0, 7], data: Vec::new().into() };
    let base = write_safetensors(&[weight, other, nothing], &BTreeMap::new()).unwrap();
    let factors = ["A", "B"].map(|which| {
        OutTensor::f32(format!("base_model.model.w.lora_{which}.weight"), &[2, 2], &[factor; 4])
    });
    let config = format!(r#"{{ "peft_type": "LORA", "lora_alpha": 3{more} }}"#);
    let files = MemoryFiles::from_iter([
        (ADAPTER_CONFIG_FILE, config.into_bytes()),
        (ADAPTER_FILE, write_safetensors(&factors, &BTreeMap::new()).unwrap()),
    ]);
    let base = block_on(Checkpoint::from_source("m.safetensors", base)).unwrap();
    Merged::new(base, block_on(Adapter::open(&files, |_| None)).unwrap()).unwrap()
}

#[test]
fn every_float_keeps_its_type() {
    let job = ExportJob { files: Vec::new(), shard_bytes: 4 << 30 };
    let rslora = r#", "use_rslora": true"#;
    for (dtype, data) in [
        (Dtype::F32, [1.0_f32.to_le_bytes(); 4].concat()),
        (Dtype::F16, [half::f16::ONE.to_le_bytes(); 4].concat()),
        (Dtype::Bf16, [bf16::ONE.to_le_bytes(); 4].concat()),
    ] {
        for (more, scale) in [("", 1.5), (rslora, 3.0 / 2.0_f64.sqrt())] {
            let parent = tempdir().unwrap();
            let merged = small(dtype, data.clone(), 0.5, more);
            let out = parent.path().join("deep/out");
            block_on(export(&job, &merged, &out, &mut |_, _| true)).unwrap();
            let written = open(&out);
            assert_eq!(written.info("w.weight").unwrap().dtype, dtype);
            assert_eq!(*block_on(written.read_bytes("codes")).unwrap(), [0xff; 24]);
            assert_eq!(written.info("nothing").unwrap().shape, [0, 7]);
            let sum = 1.0 + scale * 0.5;
            let expected = match dtype {
                Dtype::F32 => sum as f32,
                Dtype::F16 => half::f16::from_f64(sum).to_f32(),
                _ => bf16::from_f64(sum).to_f32(),
            };
            assert_eq!(block_on(written.read_f32("w.weight")).unwrap(), [expected; 4]);
        }
    }
}

#[test]
fn what_the_type_cannot_hold_is_named_and_nothing_is_left() {
    let job = ExportJob { files: Vec::new(), shard_bytes: 4 << 30 };
    let parent = tempdir().unwrap();
    let data = [half::f16::ONE.to_le_bytes(); 4].concat();
    let merged = small(Dtype::F16, data, 200.0, "");
    let out = parent.path().join("out");
    let error = block_on(export(&job, &merged, &out, &mut |_, _| true)).unwrap_err();
    assert!(matches!(error, Error::MergedOverflow { at: 0, dtype: Dtype::F16, .. }));
    let error = error.to_string();
    assert!(error.starts_with("`w.weight` becomes 1.20001e5 at element 0"), "{error}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}
