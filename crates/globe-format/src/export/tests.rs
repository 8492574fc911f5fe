//! Exports stopped at every file operation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, ErrorKind},
};

use pollster::block_on;
use tempfile::tempdir;

use super::*;
use crate::{
    checkpoint::{INDEX_FILE, SINGLE_FILE},
    lora::{ADAPTER_CONFIG_FILE, ADAPTER_FILE, Adapter},
    mapped::Folder,
    pack::disk::Disk,
    source::MemoryFiles,
    write::{OutTensor, write_safetensors},
};

type Small = Merged<Checkpoint<Vec<u8>>, std::sync::Arc<Vec<u8>>>;

/// A matrix that an adapter of rank 1 changes by 2, and a vector that it does not.
fn merged() -> Small {
    let tensors = [
        OutTensor::f32("a.weight", &[3, 4], &[0.25; 12]),
        OutTensor::f32("b.bias", &[5], &[-1.0; 5]),
    ];
    let base = write_safetensors(&tensors, &BTreeMap::new()).unwrap();
    let factors = [
        OutTensor::f32("base_model.model.a.lora_A.weight", &[1, 4], &[0.5; 4]),
        OutTensor::f32("base_model.model.a.lora_B.weight", &[3, 1], &[2.0; 3]),
    ];
    let config = br#"{ "peft_type": "LORA", "r": 1, "lora_alpha": 2 }"#;
    let files = MemoryFiles::from_iter([
        (ADAPTER_CONFIG_FILE, config.to_vec()),
        (ADAPTER_FILE, write_safetensors(&factors, &BTreeMap::new()).unwrap()),
    ]);
    let base = block_on(Checkpoint::from_source("m.safetensors", base)).unwrap();
    Merged::new(base, block_on(Adapter::open(&files, |_| None)).unwrap()).unwrap()
}

fn job(shard_bytes: u64) -> ExportJob {
    ExportJob { files: vec![("config.json".into(), b"{}".to_vec())], shard_bytes }
}

/// A disk that is full after some operations, the last of which still has its effect.
struct Full {
    disk: Disk,
    left: usize,
}

impl Full {
    fn step(&mut self, effect: impl FnOnce(&mut Disk) -> io::Result<()>) -> io::Result<()> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(ErrorKind::StorageFull.into());
        };
        self.left = left;
        effect(&mut self.disk)?;
        if left == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl OutFolder for Full {
    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.step(|disk| disk.create(name))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.step(|disk| disk.append(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step(Disk::sync)
    }

    fn publish(&mut self) -> io::Result<()> {
        self.step(Disk::publish)
    }

    fn discard(&mut self) {
        self.disk.discard();
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.step(|disk| disk.remove(name))
    }
}

/// What a crash after `n` operations leaves, the folder of a stopped program being the `.partial`
/// one: never weights that would load, except whole ones.
#[test]
fn what_a_crash_leaves_is_whole_or_no_model() {
    let merged = merged();
    for (shard_bytes, last) in [(1 << 20, SINGLE_FILE), (40, INDEX_FILE)] {
        let job = job(shard_bytes);
        let plan = Plan::new(merged.base(), &job).unwrap();
        let mut failed = BTreeSet::new();
        for n in 1.. {
            let folder = tempdir().unwrap();
            let disk = Disk::unsynced(folder.path().into()).unwrap();
            let mut disk = Full { disk, left: n };
            let total_bytes = plan.total_bytes;
            let on_bytes = &mut |_, _| true;
            let mut run = Run { merged: &merged, disk: &mut disk, on_bytes, done: 0, total_bytes };
            let result = block_on(run.write(&plan, &job.files));
            let is_model = folder.path().join(last).exists();
            let opened = block_on(Checkpoint::open(&Folder::open(folder.path()).unwrap()));
            assert_eq!(opened.is_ok(), is_model, "after {n}");
            match result {
                Ok(()) => {
                    assert!(is_model && n > 10);
                    break;
                }
                Err(Error::DiskFull { file, .. }) => _ = failed.insert(file),
                Err(other) => panic!("after {n}: {other}"),
            }
        }
        assert!(failed.contains("config.json") && failed.contains(last), "{failed:?}");
        assert_eq!(failed.len(), 1 + plan.shards.len() + usize::from(plan.index.is_some()));
    }
}

#[test]
fn an_error_leaves_nothing_and_leftovers_of_a_crash_are_cleared() {
    let (merged, parent) = (merged(), tempdir().unwrap());
    let (out, partial) = (parent.path().join("out"), parent.path().join("out.partial"));
    for stop_after in 0..2 {
        let mut calls = 0;
        let mut on_bytes = |_, _| {
            calls += 1;
            calls <= stop_after
        };
        let error = block_on(export(&job(40), &merged, &out, &mut on_bytes)).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
    fs::create_dir(&partial).unwrap();
    for name in ["config.json", "model-00007-of-00009.safetensors", "model.safetensors.tmp"] {
        fs::write(partial.join(name), "unfinished").unwrap();
    }
    let exported = block_on(export(&job(40), &merged, &out, &mut |_, _| true)).unwrap();
    let expected = Exported { n_tensors: 2, n_merged: 1, total_bytes: 68, n_shards: 2 };
    assert_eq!(exported, expected);
    assert!(!partial.exists());
    let written = block_on(Checkpoint::open(&Folder::open(&out).unwrap())).unwrap();
    assert_eq!(block_on(written.read_f32("a.weight")).unwrap(), [2.25; 12]);
    assert_eq!(block_on(written.read_f32("b.bias")).unwrap(), [-1.0; 5]);
}

#[test]
fn files_of_others_are_left_alone() {
    let (merged, parent) = (merged(), tempdir().unwrap());
    let (out, partial) = (parent.path().join("out"), parent.path().join("out.partial"));
    let run = || block_on(export(&job(40), &merged, &out, &mut |_, _| true));
    let taken = |found: &str| match run().unwrap_err() {
        Error::OutputTaken { found: named } => assert!(named.ends_with(found), "{named}"),
        other => panic!("{other}"),
    };
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("thesis.txt"), "mine").unwrap();
    taken("thesis.txt");
    assert_eq!(fs::read(partial.join("thesis.txt")).unwrap(), b"mine");
    fs::remove_dir_all(&partial).unwrap();

    fs::write(&out, "a file").unwrap();
    assert!(matches!(run().unwrap_err(), Error::WriteFile { .. }));
    fs::remove_file(&out).unwrap();
    fs::create_dir(&out).unwrap();
    run().unwrap();
    taken("");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 4);

    for name in ["../x.json", "model.safetensors", INDEX_FILE, "x.tmp"] {
        let job = ExportJob { files: vec![(name.into(), Vec::new())], shard_bytes: 40 };
        let fresh = parent.path().join("fresh");
        let error = block_on(export(&job, &merged, &fresh, &mut |_, _| true)).unwrap_err();
        assert!(matches!(error, Error::PackOption { field: "files", .. }), "{error}");
        assert!(!fresh.exists());
    }
}

/// Trained weights in place of a matrix and of its other name.
#[test]
fn trained_weights_take_the_place_of_those_of_the_base() {
    let file = |tensors: &[OutTensor<'_>]| {
        let bytes = write_safetensors(tensors, &BTreeMap::new()).unwrap();
        block_on(Checkpoint::from_source("m.safetensors", bytes)).unwrap()
    };
    let base = || {
        file(&[
            OutTensor::f32("a.weight", &[3, 4], &[0.25; 12]),
            OutTensor::f32("b.bias", &[5], &[-1.0; 5]),
            OutTensor::f32("head.weight", &[3, 4], &[0.5; 12]),
        ])
    };
    let trained: Vec<f32> = (0..12).map(|i| i as f32 / 3.0).collect();
    let weights = file(&[OutTensor::f32("a.weight", &[3, 4], &trained)]);
    let aliases = vec![("head.weight".to_owned(), "a.weight".to_owned())];
    let replaced = Replaced::new(base(), weights, aliases).unwrap();
    let parent = tempdir().unwrap();
    let out = parent.path().join("out");
    let exported = block_on(export(&job(40), &replaced, &out, &mut |_, _| true)).unwrap();
    assert_eq!((exported.n_tensors, exported.n_merged), (3, 2));
    let written = block_on(Checkpoint::open(&Folder::open(&out).unwrap())).unwrap();
    let read = |name: &str| block_on(written.read_f32(name)).unwrap();
    assert_eq!((read("a.weight"), read("head.weight")), (trained.clone(), trained));
    assert_eq!(read("b.bias"), [-1.0; 5]);

    for (name, shape) in [("a.weight", [4, 3]), ("c.weight", [3, 4])] {
        let other = file(&[OutTensor::f32(name, &shape, &[0.0; 12])]);
        let error = Replaced::new(base(), other, Vec::new()).unwrap_err().to_string();
        assert!(error.contains("another base: 1 of its 1") && error.contains(name), "{error}");
    }
}
