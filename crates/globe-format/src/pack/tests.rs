//! Conversions stopped at every file operation, and the bytes of those that go on.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    ops::Range,
    path::Path,
};

use pollster::block_on;
use tempfile::{TempDir, tempdir};

use super::{disk::Disk, *};
use crate::{
    checkpoint::Checkpoint,
    packed::{Class, Packed, SourceRows, verify},
    write::{OutTensor, write_safetensors},
};

/// Less than the scales of the largest tensor.
const SHARD_BYTES: u64 = 768;

fn specs() -> Vec<TensorSpec> {
    let source = |name: &str, padded_rows: usize| SourceRows {
        name: name.into(),
        rows: 9,
        cols: 40,
        padded_rows,
    };
    let pair = |padded_rows| vec![source("gate", padded_rows), source("up", padded_rows)];
    vec![
        TensorSpec::vector("norm", 40),
        TensorSpec::interleave("gate_up", Class::Text, pair(32)),
        TensorSpec::stack("both", Class::Vision, pair(9)),
        TensorSpec::matrix("table", Class::Embedding, 30, 40),
    ]
}

/// The tensors of [`specs`].
fn checkpoint() -> Checkpoint<Vec<u8>> {
    let numbers = |n: usize, step: f32| -> Vec<f32> {
        (0..n).map(|i| (i as f32 * step).sin() * 0.1).collect()
    };
    let tensors = [
        OutTensor::f32("norm", &[40], &numbers(40, 0.1)),
        OutTensor::f32("gate", &[9, 40], &numbers(360, 0.3)),
        OutTensor::f32("up", &[9, 40], &numbers(360, 0.7)),
        OutTensor::f32("table", &[30, 40], &numbers(1200, 0.9)),
    ];
    let bytes = write_safetensors(&tensors, &BTreeMap::new()).unwrap();
    block_on(Checkpoint::from_source("m.safetensors", bytes)).unwrap()
}

fn job(specs: &[TensorSpec]) -> PackJob<'_> {
    PackJob {
        architecture: "test",
        specs,
        options: PackOptions { bits: 4, vision_bits: 8, shard_bytes: SHARD_BYTES },
        source: Provenance::default(),
        files: vec![("config.json".into(), b"{}".to_vec()), ("empty".into(), Vec::new())],
    }
}

/// Runs a job, with what it said.
fn run(job: &PackJob<'_>, out: &Path) -> (Result<Manifest>, Vec<PackEvent>) {
    let mut events = Vec::new();
    let tensors = checkpoint();
    let manifest = block_on(pack_unsynced(job, &tensors, out, &mut |e| events.push(e), &|| false));
    events.retain(|event| !matches!(event, PackEvent::Progress { .. }));
    (manifest, events)
}

/// [`pack`] without waiting for the disk, which takes most of the time of small files.
async fn pack_unsynced<T: SourceTensors>(
    job: &PackJob<'_>,
    tensors: &T,
    out: &Path,
    on_event: &mut dyn FnMut(PackEvent),
    cancelled: &dyn Fn() -> bool,
) -> Result<Manifest> {
    let draft = job.draft()?;
    rows::check_sources(job.specs, tensors)?;
    let mut disk = Disk::unsynced(out.into()).unwrap();
    let folder = Folder::open(out)?;
    Run { job, draft, on_event, cancelled }.pack(tensors, &folder, &mut disk).await
}

/// Every file of a folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let read = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    entries.map(read).collect()
}

fn reference() -> BTreeMap<String, Vec<u8>> {
    let out = tempdir().unwrap();
    run(&job(&specs()), out.path()).0.unwrap();
    contents(out.path())
}

/// A disk that stops working.
struct Failing {
    disk: Disk,
    /// Operations until then, or `None` after that.
    left: Option<usize>,
    /// Whether the last operation still has its effect, or half of it.
    takes_effect: bool,
    /// How the last operation fails.
    kind: ErrorKind,
    /// Whether the program goes on after that, or is gone.
    survives: bool,
}

impl Failing {
    fn step(&mut self, effect: impl FnOnce(&mut Disk) -> io::Result<()>) -> io::Result<()> {
        match self.left {
            None => return Err(self.kind.into()),
            Some(0) => {
                self.left = None;
                if self.takes_effect {
                    effect(&mut self.disk)?;
                }
                return Err(self.kind.into());
            }
            Some(left) => self.left = Some(left - 1),
        }
        effect(&mut self.disk)
    }
}

impl OutFolder for Failing {
    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.step(|disk| disk.create(name))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let n = if self.left == Some(0) { bytes.len() / 2 } else { bytes.len() };
        self.step(|disk| disk.append(&bytes[..n]))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step(Disk::sync)
    }

    fn publish(&mut self) -> io::Result<()> {
        self.step(Disk::publish)
    }

    fn discard(&mut self) {
        if self.survives {
            self.disk.discard();
        }
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.step(|disk| disk.remove(name))
    }
}

/// Runs the job on a disk that stops after `n` operations; `None` if it needed no more.
fn stopped_after(
    n: usize,
    takes_effect: bool,
    (kind, survives): (ErrorKind, bool),
) -> Option<(TempDir, Error)> {
    let out = tempdir().unwrap();
    let (specs, tensors) = (specs(), checkpoint());
    let job = job(&specs);
    let disk = Disk::unsynced(out.path().into()).unwrap();
    let mut disk = Failing { disk, left: Some(n), takes_effect, kind, survives };
    let draft = job.draft().unwrap();
    let mut run = Run { job: &job, draft, on_event: &mut |_| {}, cancelled: &|| false };
    let folder = Folder::open(out.path()).unwrap();
    let result = block_on(run.pack(&tensors, &folder, &mut disk));
    result.err().map(|error| (out, error))
}

#[test]
fn a_crash_at_any_point_leaves_no_model_and_can_be_resumed() {
    let reference = reference();
    let specs = specs();
    let mut most_kept = 0;
    let mut n_points = 0;
    for takes_effect in [false, true] {
        for n in 0.. {
            let crash = (ErrorKind::Other, false);
            let Some((out, _)) = stopped_after(n, takes_effect, crash) else { break };
            n_points += 1;
            let folder = Folder::open(out.path()).unwrap();
            let complete = contents(out.path()).contains_key(MANIFEST_FILE);
            match block_on(Packed::open(&folder)) {
                Err(Error::Unfinished | Error::NotFound { .. }) => assert!(!complete),
                Err(other) => panic!("after {n}: {other}"),
                Ok(_) => {
                    assert!(complete, "after {n}");
                    block_on(verify(&folder, &mut |_, _| true)).unwrap();
                }
            }
            let finished = contents(out.path());
            let finished = finished.keys().filter(|name| shards::is_shard_name(name)).count();
            let (manifest, events) = run(&job(&specs), out.path());
            manifest.unwrap_or_else(|error| panic!("after {n}: {error}"));
            assert_eq!(contents(out.path()), reference, "after {n}");
            if let [PackEvent::Resumed { shards }] = events[..] {
                // The last shard may be in place and not yet in the journal.
                assert!(shards == finished || shards + 1 == finished, "{shards} of {finished}");
                most_kept = most_kept.max(shards);
            }
        }
    }

    let n_shards = reference.keys().filter(|name| shards::is_shard_name(name)).count();
    assert!(n_shards > 4 && n_points > 8 * n_shards, "{n_points} points, {n_shards} shards");
    assert_eq!(most_kept, n_shards);
}

#[test]
fn a_full_disk_is_named_and_leaves_no_temporary_file() {
    let mut seen = Vec::new();
    for n in 0.. {
        let full = (ErrorKind::StorageFull, true);
        let Some((out, error)) = stopped_after(n, true, full) else { break };
        let left = contents(out.path());
        match error {
            Error::DiskFull { file, .. } => seen.push(file),
            Error::WriteFile { .. } | Error::Open { .. } => panic!("after {n}: {error}"),
            other => panic!("after {n}: {other}"),
        }
        if !left.contains_key(MANIFEST_FILE) {
            assert!(
                !left.keys().any(|name| name.ends_with(disk::TEMPORARY)),
                "after {n}: {left:?}"
            );
        }
    }
    for name in ["model-00002.bin", "config.json", MANIFEST_FILE, JOURNAL_FILE] {
        assert!(seen.iter().any(|file| file == name), "{name} in {seen:?}");
    }
}

#[test]
fn cancelling_keeps_finished_shards() {
    let (specs, tensors) = (specs(), checkpoint());
    let (job, reference) = (job(&specs), reference());
    let mut kept = Vec::new();
    for n in 0_usize.. {
        let out = tempdir().unwrap();
        let left = Cell::new(n);
        let cancelled = || left.replace(left.get().saturating_sub(1)) == 0;
        let result = block_on(pack_unsynced(&job, &tensors, out.path(), &mut |_| {}, &cancelled));
        let Err(error) = result else { break };
        assert!(matches!(error, Error::Cancelled), "{error}");
        let left = contents(out.path());
        assert!(!left.contains_key(MANIFEST_FILE) && left.contains_key(JOURNAL_FILE));
        assert!(!left.keys().any(|name| name.ends_with(disk::TEMPORARY)));
        kept.push(left.len() - 1);
        run(&job, out.path()).0.unwrap();
        assert_eq!(contents(out.path()), reference);
    }
    assert!(
        kept.len() > 4 && kept[0] == 0 && kept.is_sorted() && kept.last() > Some(&2),
        "{kept:?}"
    );
}

#[test]
fn the_same_job_gives_the_same_bytes_and_is_done_once() {
    let (specs, out) = (specs(), tempdir().unwrap());
    let job = job(&specs);
    let manifest = block_on(pack(&job, &checkpoint(), out.path(), &mut |_| {}, &|| false));
    assert_eq!(contents(out.path()), reference());
    let (again, events) = run(&job, out.path());
    assert_eq!((again.unwrap(), events), (manifest.unwrap(), vec![PackEvent::AlreadyDone]));

    fs::write(out.path().join("model-00002.bin"), vec![0; SHARD_BYTES as usize]).unwrap();
    let error = run(&job, out.path()).0.unwrap_err();
    assert!(error.to_string().contains("model-00002.bin: changed: expected sha256"), "{error}");
}

#[test]
fn the_array_does_not_depend_on_the_size_of_files() {
    let specs = specs();
    let array = |shard_bytes| {
        let (mut job, out) = (job(&specs), tempdir().unwrap());
        job.options.shard_bytes = shard_bytes;
        let manifest = run(&job, out.path()).0.unwrap();
        // Shorter than the scales of a part, which are not held then, or long enough for all of it.
        let scales = |tensor: &PackedTensor| tensor.parts[0].scales.map(|extent| extent.size);
        assert_eq!(manifest.tensors.iter().filter_map(scales).max(), Some(1024));
        let files = contents(out.path());
        manifest.shards.iter().flat_map(|shard| files[&shard.name].clone()).collect::<Vec<u8>>()
    };
    let whole = array(1 << 20);
    for shard_bytes in [256, SHARD_BYTES, 1536] {
        assert_eq!(array(shard_bytes), whole, "files of {shard_bytes} bytes");
    }
}

#[test]
fn changed_inputs_start_over() {
    let specs = specs();
    let (out, _) = stopped_after(90, true, (ErrorKind::Other, false)).unwrap();
    assert!(contents(out.path()).contains_key("model-00003.bin"));
    let mut other = job(&specs);
    other.options.bits = 16;
    let (manifest, events) = run(&other, out.path());
    assert_eq!(events, [PackEvent::StartedOver]);
    let fresh = tempdir().unwrap();
    assert_eq!(run(&other, fresh.path()).0.unwrap(), manifest.unwrap());
    assert_eq!(contents(out.path()), contents(fresh.path()));

    let error = run(&job(&specs), out.path()).0.unwrap_err();
    assert!(matches!(&error, Error::OutputTaken { found } if found == MANIFEST_FILE), "{error}");
    assert_eq!(contents(out.path()), contents(fresh.path()), "a finished model is left alone");
}

#[test]
fn a_damaged_shard_of_an_earlier_run_is_written_again() {
    let (out, _) = stopped_after(90, true, (ErrorKind::Other, false)).unwrap();
    let name = out.path().join("model-00002.bin");
    let mut bytes = fs::read(&name).unwrap();
    bytes[17] ^= 1;
    fs::write(&name, bytes).unwrap();
    let (manifest, events) = run(&job(&specs()), out.path());
    manifest.unwrap();
    assert_eq!(events, [PackEvent::Resumed { shards: 1 }]);
    assert_eq!(contents(out.path()), reference());
}

#[test]
fn other_folders_are_left_alone() {
    let specs = specs();
    for name in ["photo.jpg", "model-00001.bin", "config.json", "manifest.json.tmp"] {
        let out = tempdir().unwrap();
        fs::write(out.path().join(name), b"mine").unwrap();
        let error = run(&job(&specs), out.path()).0.unwrap_err();
        assert!(matches!(&error, Error::OutputTaken { found } if found == name), "{error}");
        assert_eq!(contents(out.path()).len(), 1);
    }
}

#[test]
fn wrong_options_are_named_before_anything_is_written() {
    let (specs, parent) = (specs(), tempdir().unwrap());
    let out = parent.path().join("out");
    let refuse = |job: &PackJob<'_>| {
        let result = block_on(pack(job, &checkpoint(), &out, &mut |_| {}, &|| false));
        assert!(!out.exists());
        result.unwrap_err().to_string()
    };
    let error = |change: &dyn Fn(&mut PackJob<'_>)| {
        let mut job = job(&specs);
        change(&mut job);
        refuse(&job)
    };
    assert_eq!(error(&|job| job.options.bits = 5), "bits: 5 bits; known are 4, 8, 16 and 32");
    assert!(error(&|job| job.options.vision_bits = 0).starts_with("vision_bits: 0 bits"));
    assert!(error(&|job| job.options.shard_bytes = 100).starts_with("shard_bytes: 100"));
    for name in ["manifest.json", "model-00001.bin", "../x", "a.tmp"] {
        let error = error(&|job| job.files.push((name.into(), Vec::new())));
        assert!(error.contains("cannot be the name of a copied file"), "{error}");
    }
    let other = [TensorSpec::matrix("tables", Class::Text, 30, 40)];
    let error = refuse(&job(&other));
    assert!(error.contains("missing `tables` [30, 40]; nearest is `table`"), "{error}");
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    struct Bad;
    impl SourceTensors for Bad {
        fn tensor_names(&self) -> Vec<String> {
            vec!["m".into(), "v".into()]
        }
        fn shape(&self, name: &str) -> Option<Vec<usize>> {
            Some(if name == "m" { vec![3000, 64] } else { vec![700] })
        }
        async fn read_range(&self, name: &str, elements: Range<usize>) -> Result<Vec<f32>> {
            let bad = if name == "m" { 2222 * 64 + 3 } else { 600 };
            Ok(elements.map(|e| if e == bad { f32::NAN } else { 0.5 }).collect())
        }
    }
    for (spec, place) in [
        (TensorSpec::matrix("m", Class::Text, 3000, 64), "`m`: NaN at row 2222, column 3;"),
        (TensorSpec::vector("v", 700), "`v`: NaN at row 600, column 0;"),
    ] {
        let (specs, out) = ([spec], tempdir().unwrap());
        let result = block_on(pack(&job(&specs), &Bad, out.path(), &mut |_| {}, &|| false));
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(place), "{error}");
        assert!(!contents(out.path()).contains_key(MANIFEST_FILE));
    }
}
