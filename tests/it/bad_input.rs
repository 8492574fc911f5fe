//! A damaged or foreign model folder is a typed error that names the file, the field and what to do.

use std::collections::BTreeMap;

use globe_engine::{Engine, Error, LoadOptions};
use globe_format::{Dtype, MemoryFiles, OutTensor, write_safetensors};
use globe_model::MemoryPlan;
use globe_ops::{Compute, DeviceChoice, open_device};
use globe_tests::{Golden, golden_root, gpu, oracle};
use serde_json::Value;

/// The files of a committed checkpoint, to be damaged.
fn files(name: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = std::fs::read_dir(golden_root().join(name)).unwrap();
    folder
        .map(|entry| entry.unwrap())
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .filter(|(name, _)| !name.starts_with("golden."))
        .collect()
}

fn load(files: BTreeMap<String, Vec<u8>>, compute: Compute) -> Result<Engine, Error> {
    let files = MemoryFiles::from(files);
    pollster::block_on(Engine::load(&files, compute, &mut |_, _| {}))
}

/// The message of the error that loading ends with.
fn refusal(files: BTreeMap<String, Vec<u8>>) -> String {
    match load(files, Compute::cpu()) {
        Ok(_) => panic!("the folder was accepted"),
        Err(error) => error.to_string(),
    }
}

fn assert_names(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// The checkpoint with one field of a JSON file replaced; the path is a JSON pointer.
fn with_field(file: &str, pointer: &str, value: Value) -> BTreeMap<String, Vec<u8>> {
    let mut files = files("untied");
    let mut json: Value = serde_json::from_slice(&files[file]).unwrap();
    *json.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
    files.insert(file.into(), serde_json::to_vec(&json).unwrap());
    files
}

#[test]
fn the_unchanged_folder_loads() {
    assert!(load(files("untied"), Compute::cpu()).is_ok());
}

#[test]
fn missing_files_are_named() {
    for file in ["config.json", "tokenizer.json", "preprocessor_config.json", "model.safetensors"] {
        let mut files = files("untied");
        files.remove(file);
        assert_names(&refusal(files), &[file]);
    }
}

#[test]
fn a_missing_shard_is_named() {
    let mut files = files("window112");
    files.remove("model-00002-of-00003.safetensors");
    assert_names(&refusal(files), &["model-00002-of-00003.safetensors"]);
}

#[test]
fn a_truncated_or_over_long_file_is_named() {
    let whole = files("untied")["model.safetensors"].clone();
    let longer = [&whole[..], &[0; 12]].concat();
    for bytes in [vec![], whole[..5].to_vec(), whole[..whole.len() - 1].to_vec(), longer] {
        let mut files = files("untied");
        files.insert("model.safetensors".into(), bytes);
        assert_names(&refusal(files), &["model.safetensors"]);
    }
}

#[test]
fn a_header_larger_than_the_file_is_named() {
    let mut files = files("untied");
    let model = files.get_mut("model.safetensors").unwrap();
    model[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_names(&refusal(files), &["model.safetensors", "header"]);
}

#[test]
fn a_weight_that_is_not_a_number_is_named() {
    let mut files = files("untied");
    let model = files.get_mut("model.safetensors").unwrap();
    let last = model.len() - 4;
    model[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert_names(&refusal(files), &["model.safetensors", "NaN"]);
}

#[test]
fn foreign_tensors_are_listed_together() {
    let mut files = files("untied");
    let data = [0u8; 8];
    let tensor = |name: &str, shape: &[usize]| OutTensor {
        name: name.into(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        data: data[..4 * shape.iter().product::<usize>()].into(),
    };
    let tensors =
        [tensor("model.visual.merger.ln_q.weigth", &[2]), tensor("lm_head.weight", &[1, 2])];
    let bytes = write_safetensors(&tensors, &BTreeMap::new()).unwrap();
    files.insert("model.safetensors".into(), bytes);
    let message = refusal(files);
    assert_names(&message, &["visual.merger.ln_q.weight", "ln_q.weigth", "lm_head.weight"]);
}

#[test]
fn another_architecture_is_named() {
    let files = with_field("config.json", "/model_type", "llava".into());
    assert_names(&refusal(files), &["llava", "qwen2_5_vl"]);
}

#[test]
fn impossible_sizes_are_named() {
    for (pointer, value, field) in [
        ("/text_config/hidden_size", Value::from(0), "hidden_size"),
        ("/text_config/num_attention_heads", 5.into(), "heads"),
        ("/text_config/num_key_value_heads", 3.into(), "num_key_value_heads"),
        ("/text_config/hidden_act", "relu".into(), "hidden_act"),
        ("/text_config/rope_parameters/mrope_section", vec![1, 2].into(), "mrope_section"),
        ("/text_config/rope_parameters/rope_type", "yarn".into(), "rope_type"),
        ("/vision_config/window_size", 7.into(), "window_size"),
        ("/vision_config/patch_size", 0.into(), "patch_size"),
        ("/vision_config/out_hidden_size", 8.into(), "out_hidden_size"),
        ("/vision_config/depth", "two".into(), "vision_config"),
        ("/image_token_id", 4_000_000.into(), "image_token_id"),
    ] {
        let message = refusal(with_field("config.json", pointer, value));
        assert_names(&message, &["config.json", field]);
    }
}

#[test]
fn files_of_different_models_are_named() {
    let message = refusal(with_field("preprocessor_config.json", "/patch_size", 16.into()));
    assert_names(&message, &["preprocessor_config.json", "patch_size", "16", "14"]);

    let mut mixed = files("untied");
    mixed.insert("tokenizer.json".into(), files("deep")["tokenizer.json"].clone());
    assert_names(&refusal(mixed), &["tokenizer.json"]);
}

#[test]
fn files_that_are_not_json_are_named() {
    for file in ["config.json", "tokenizer.json", "preprocessor_config.json"] {
        for bytes in [&b""[..], b"{", b"[1, 2]", &[0xff; 40]] {
            let mut files = files("untied");
            files.insert(file.into(), bytes.to_vec());
            // The first two name themselves; image settings say which settings they are.
            assert!(!refusal(files).is_empty(), "{file}");
        }
    }
}

#[test]
fn a_tensor_that_cannot_be_bound_is_named() {
    let Err(error) = load(files("untied"), Compute::cpu().limited_to(4096)) else {
        panic!("a tensor larger than a buffer was accepted");
    };
    assert_names(&error.to_string(), &["visual", "4096"]);
}

/// The refusal of a budget of 1 MiB.
fn over_budget(files: BTreeMap<String, Vec<u8>>) -> MemoryPlan {
    let files = MemoryFiles::from(files);
    let options = LoadOptions { budget: Some(1 << 20), ..LoadOptions::default() };
    let (compute, mut quiet) = (gpu().clone(), |_, _| {});
    let load = Engine::load_with(&files, compute, &options, &mut quiet);
    match pollster::block_on(load) {
        Err(Error::Model(globe_model::Error::OverBudget { plan, budget })) => {
            assert_eq!(budget, 1 << 20);
            *plan
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was loaded"),
    }
}

#[test]
fn a_model_larger_than_memory_is_refused_before_its_weights_are_read() {
    for (name, shard) in
        [("untied", "model.safetensors"), ("window112", "model-00002-of-00003.safetensors")]
    {
        let whole = over_budget(files(name));
        assert!(whole.device_bytes() > 1 << 20 && whole.weights > 0, "{name}: {whole}");
        for damage in [None, Some(vec![0x5a; 99])] {
            let mut files = files(name);
            files.remove(shard);
            files.extend(damage.map(|bytes| (shard.to_owned(), bytes)));
            // config.json names the format that the headers would.
            assert_eq!(over_budget(files), whole, "{name}");
        }
    }
}

#[test]
fn a_packed_model_larger_than_memory_needs_no_shard() {
    let folder = crate::convert::converted("untied", "--bits 4 --quiet");
    let names = crate::cli::names(folder.path());
    let read = |name: &String| (name.clone(), std::fs::read(folder.path().join(name)).unwrap());
    let whole: BTreeMap<_, _> = names.iter().map(read).collect();
    let mut files = whole.clone();
    files.retain(|name, _| name.contains('.') && !name.ends_with(".bin"));
    assert!(files.len() < whole.len(), "no shard among {names:?}");
    assert_eq!(over_budget(files), over_budget(whole));
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_with_all_numbers() {
    let golden = Golden::open("untied");
    let engine =
        pollster::block_on(Engine::load(&golden.folder, Compute::cpu(), &mut |_, _| {})).unwrap();
    let prepared = engine.prepare(&[], &golden.text_only_prompt(), None).unwrap();
    let limit = engine.model().config().text.max_position_embeddings;
    let Err(error) = engine.prefill(&prepared, None, limit) else { panic!("it was accepted") };
    let prompt = prepared.ids.len().to_string();
    assert_names(&error.to_string(), &[&prompt, &limit.to_string(), "--max-tokens"]);
}

#[test]
fn a_photo_or_prompt_beyond_what_the_adapter_binds_is_refused_with_both_sizes() {
    let golden = Golden::open("untied");
    let limit = 64 << 10;
    let compute = gpu().clone().limited_to(limit);
    let engine = pollster::block_on(Engine::load(&golden.folder, compute, &mut |_, _| {})).unwrap();
    let photos = golden.photos();
    let mut photo = engine.prepare(&[&photos[0]], &golden.prompt(), None).unwrap();
    let text = engine.prepare(&[], &golden.text_only_prompt(), None).unwrap();
    let too_large = |error: Option<Error>, plan: MemoryPlan| match error {
        Some(Error::Ops(globe_ops::Error::TooLarge { size_bytes, limit_bytes })) => {
            assert_eq!([size_bytes, limit_bytes], [plan.largest_buffer, limit]);
        }
        other => panic!("{other:?}"),
    };
    let plan = engine.plan(&photo, 0, false, 1);
    too_large(engine.encode(&mut photo).err(), plan);
    let plan = engine.plan(&text, 900, false, 1);
    too_large(engine.prefill(&text, None, 900).err(), plan);
}

#[test]
fn a_step_past_the_cache_is_refused() {
    let golden = Golden::open("untied");
    let engine =
        pollster::block_on(Engine::load(&golden.folder, Compute::cpu(), &mut |_, _| {})).unwrap();
    let model = engine.model();
    let mut cache = model.cache(3, 0, 1);
    model.prefill(&[1, 2, 3], None, &[], &mut cache).unwrap();
    let id = globe_ops::tensor_i32(vec![1], [1], &oracle());
    let Err(error) = model.step(id, &mut cache) else { panic!("it was accepted") };
    assert_names(&error.to_string(), &["3 + 1", "exceed 3"]);
}

#[test]
fn an_absent_gpu_is_named() {
    if globe_tests::has_hardware_gpu() {
        return; // then there is nothing to refuse
    }
    let Err(error) = pollster::block_on(open_device(DeviceChoice::Gpu)) else {
        panic!("a GPU was found after none was listed");
    };
    assert_names(&error.to_string(), &["hardware", "--device cpu"]);
}
