//! A converted GGUF file computes what a Hugging Face folder of the same weights computes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use globe_format::packed::{MANIFEST_FILE, digest_files};
use globe_format::{Checkpoint, Dtype, Folder, OutTensor, SINGLE_FILE, write_safetensors};
use globe_tests::{assert_close_scaled, golden_root};
use half::f16;
use pollster::block_on;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::cli::{globe, last_logits};
use crate::convert::{converted, gguf_root};

/// Of the largest logit. Equal blocks in equal kernels give equal bits, and nothing wider would do: in this small model
/// wrong sections of the rotary axes move a logit by 2.4e-5 of it, wrong windows by 3.6e-5.
const SAME_TOL: f32 = 1e-6;

/// The golden that shares its tokenizer with the GGUF file.
const TOKENIZER: &str = "window56";

/// What `make.py` put into the GGUF files, rounded to 16 bits.
fn write_weights(folder: &Path) {
    let expected = Folder::open(gguf_root()).unwrap();
    let expected = block_on(Checkpoint::open_file(&expected, "expected.safetensors")).unwrap();
    let tensors = expected.names().map(|name| {
        let values = block_on(expected.read_f32(name)).unwrap();
        let data = values.into_iter().flat_map(|x| f16::from_f32(x).to_le_bytes());
        let shape = expected.info(name).unwrap().shape.clone();
        OutTensor { name: name.into(), dtype: Dtype::F16, shape, data: Cow::Owned(data.collect()) }
    });
    let bytes = write_safetensors(&tensors.collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
    fs::write(folder.join(SINGLE_FILE), bytes).unwrap();
}

/// The sizes in `make.py`, and what llama.cpp fixes in code, in the layout of transformers 5.
fn write_settings(folder: &Path) {
    let config = json!({
        "model_type": "qwen2_5_vl", "image_token_id": 388, "tie_word_embeddings": false,
        "text_config": {
            "model_type": "qwen2_5_vl_text", "vocab_size": 405, "hidden_size": 32,
            "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]
            }
        },
        "vision_config": {
            "depth": 4, "hidden_size": 16, "intermediate_size": 21, "num_heads": 2,
            "out_hidden_size": 32, "patch_size": 4, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "window_size": 112, "fullatt_block_indexes": [1, 3]
        }
    });
    let images = json!({
        "patch_size": 4, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 3136,
        "max_pixels": 12_845_056, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711]
    });
    for (name, settings) in [("config.json", config), ("preprocessor_config.json", images)] {
        fs::write(folder.join(name), settings.to_string()).unwrap();
    }
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        fs::copy(golden_root().join(TOKENIZER).join(name), folder.join(name)).unwrap();
    }
}

/// Deletes a file of a packed folder and takes up another one.
fn exchange(folder: &Path, gone: &str, new: &str) {
    fs::remove_file(folder.join(gone)).unwrap();
    let files = Folder::open(folder).unwrap();
    let added = block_on(digest_files(&files, &[new.to_owned()], &mut |_, _| true)).unwrap();
    let path = folder.join(MANIFEST_FILE);
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let listed = manifest["files"].as_array_mut().unwrap();
    listed.retain(|file| file["name"] != gone && file["name"] != new);
    listed.extend(added.iter().map(|file| serde_json::to_value(file).unwrap()));
    fs::write(path, manifest.to_string()).unwrap();
}

fn logits(model: &Path) -> Value {
    let options = "--image images/wide_140x84.png --prompt Where? --tokens 24 --json";
    globe(&format!("logits --model {} {options}", model.display())).expect(0).json()
}

#[test]
fn a_converted_file_computes_what_its_weights_say() {
    let [text, vision] = ["text.gguf", "mmproj.gguf"].map(|name| gguf_root().join(name));
    let rest = format!("--mmproj {} --bits 16 --vision-bits 16", vision.display());
    let packed = converted(text.to_str().unwrap(), &rest);
    // The template in the file has no place for an image; that of the golden has.
    let template = "tokenizer_config.json";
    fs::copy(golden_root().join(TOKENIZER).join(template), packed.path().join(template)).unwrap();
    exchange(packed.path(), "chat_template.jinja", template);

    let checkpoint = tempdir().unwrap();
    write_weights(checkpoint.path());
    write_settings(checkpoint.path());
    let [got, expected] = [packed.path(), checkpoint.path()].map(logits);
    assert_eq!(got["image_grid_thw"], json!([1, 20, 36]));
    for field in ["image_grid_thw", "input_ids", "greedy"] {
        assert_eq!(got[field], expected[field], "{field}");
    }
    assert_close_scaled("logits", &last_logits(&got), &last_logits(&expected), SAME_TOL);
}
