//! Adapters made by PEFT are read and written back; `golden/verify.py` loads what is written here.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{fs, path::PathBuf};

use globe_train::checkpoint::{ADAPTER_CONFIG, ADAPTER_MODEL, Adapter, RealDisk};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn an_adapter_of_peft_is_read_and_written_back_the_same() {
    let adapter = Adapter::open(&golden("adapter")).unwrap();
    assert_eq!((adapter.config.r, adapter.config.scaling()), (2, 4.0));
    let layer = &adapter.layers["layers.0.q_proj"];
    assert_eq!((layer.n_in, layer.n_out, adapter.layers.len()), (6, 4, 2));

    let files = adapter.to_files().unwrap();
    let again = Adapter::from_files(&files[ADAPTER_CONFIG], files[ADAPTER_MODEL].clone()).unwrap();
    assert_eq!(again, adapter);
    if std::env::var_os("GLOBE_BLESS").is_some() {
        adapter.save(&mut RealDisk, &golden("adapter_rust")).unwrap();
    }
    // What verify.py has loaded with peft is what this code writes.
    for (name, bytes) in files {
        assert!(fs::read(golden("adapter_rust").join(&name)).unwrap() == bytes, "{name}");
    }
}

#[test]
fn adapters_that_compute_something_else_are_refused() {
    let config = fs::read_to_string(golden("adapter").join(ADAPTER_CONFIG)).unwrap();
    let model = fs::read(golden("adapter").join(ADAPTER_MODEL)).unwrap();
    for (from, to, part) in [
        ("\"use_dora\": false", "\"use_dora\": true", "`use_dora` is true"),
        ("\"bias\": \"none\"", "\"bias\": \"all\"", "`bias` is \"all\""),
        ("\"rank_pattern\": {}", "\"rank_pattern\": {\"x\": 4}", "`rank_pattern`"),
        ("\"LORA\"", "\"IA3\"", "`peft_type`"),
        ("\"r\": 2", "\"r\": 3", "has rank 2"),
        ("\"r\": 2", "\"r\": 0", "r 0"),
        ("\"r\": 2", "\"rr\": 2", "missing field `r`"),
    ] {
        assert!(config.contains(from));
        let changed = config.replace(from, to);
        let error = Adapter::from_files(changed.as_bytes(), model.clone()).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    let error = Adapter::from_files(config.as_bytes(), model[..40].to_vec()).unwrap_err();
    assert!(error.starts_with(ADAPTER_MODEL), "{error}");
    assert!(Adapter::open(&golden("absent")).unwrap_err().to_string().contains("absent"));
    let rslora = config.replace("\"use_rslora\": false", "\"use_rslora\": true");
    let adapter = Adapter::from_files(rslora.as_bytes(), model).unwrap();
    assert!((adapter.config.scaling() - 8.0 / 2f64.sqrt()).abs() < 1e-12);
}
