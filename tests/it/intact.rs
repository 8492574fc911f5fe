//! A damaged packed folder answers nothing: it is compared with its digests before it is first loaded.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use globe_format::packed::Manifest;
use tempfile::{TempDir, tempdir};

#[cfg(target_os = "linux")]
use crate::cli::{CACHE, command, run};
use crate::cli::{Run, globe};

/// A packed folder that this machine knows nothing about, as if it had been copied here.
fn copied() -> TempDir {
    let (made, copy) = (tempdir().unwrap(), tempdir().unwrap());
    globe(&format!("convert --from tied --out {}/packed --bits 4", made.path().display()))
        .expect(0);
    for file in fs::read_dir(made.path().join("packed")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

fn shard(folder: &Path) -> PathBuf {
    let manifest = Manifest::parse(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    folder.join(&manifest.shards[0].name)
}

/// Turns one bit, and says the file to be as old as before.
fn turn_a_bit(file: &Path) {
    let time = fs::metadata(file).unwrap().modified().unwrap();
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(file, bytes).unwrap();
    File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
}

fn logits(folder: &Path) -> Run {
    globe(&format!("logits --model {} --prompt Where? --tokens 4 --json", folder.display()))
}

#[cfg(unix)] // elsewhere a change that keeps size and time is not seen
#[test]
fn a_turned_bit_is_found_before_a_model_is_loaded() {
    let folder = copied();
    let shard = shard(folder.path());
    let name = shard.file_name().unwrap().to_str().unwrap();
    let sound = logits(folder.path()).expect(0).stdout;

    turn_a_bit(&shard);
    let refused = logits(folder.path()).expect(2);
    assert!(refused.stdout.is_empty());
    let manifest = fs::read_to_string(folder.path().join("manifest.json")).unwrap();
    let manifest = Manifest::parse(manifest.as_bytes()).unwrap();
    for part in [name, &manifest.shards[0].sha256, "found"] {
        assert!(refused.stderr.contains(part), "{part} in {}", refused.stderr);
    }
    logits(folder.path()).expect(2); // a refusal is not taken for a comparison

    turn_a_bit(&shard);
    assert_eq!(logits(folder.path()).expect(0).stdout, sound);
}

/// When the comparison of a folder was noted.
#[cfg(target_os = "linux")]
fn noted(folder: &Path) -> Option<std::time::SystemTime> {
    let folder = fs::canonicalize(folder).unwrap();
    let records = fs::read_dir(Path::new(CACHE).join("globe/intact")).ok()?;
    let records = records.map(|record| record.unwrap().path());
    let is_its = |record: &PathBuf| {
        let text = fs::read_to_string(record).unwrap_or_default();
        text.lines().next() == folder.to_str()
    };
    let record = records.into_iter().find(is_its)?;
    Some(fs::metadata(record).unwrap().modified().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn what_was_compared_is_not_read_again_until_it_changes() {
    let folder = copied();
    assert_eq!(noted(folder.path()), None);
    logits(folder.path()).expect(0);
    let first = noted(folder.path());
    assert!(first.is_some());
    logits(folder.path()).expect(0);
    assert_eq!(noted(folder.path()), first, "a comparison would be noted anew");
    let shard = shard(folder.path());
    fs::copy(&shard, shard.with_extension("copy")).unwrap();
    fs::rename(shard.with_extension("copy"), &shard).unwrap();
    globe(&format!("verify {}", folder.path().display())).expect(0);
    let second = noted(folder.path());
    assert!(second > first, "another file of equal bytes was compared");
    logits(folder.path()).expect(0);
    assert_eq!(noted(folder.path()), second);
    turn_a_bit(&shard);
    globe(&format!("verify {}", folder.path().display())).expect(2);
    assert_eq!(noted(folder.path()), None, "nothing is known of it any more");
}

#[cfg(target_os = "linux")]
#[test]
fn where_nothing_can_be_kept_every_start_compares() {
    let folder = copied();
    let shard = shard(folder.path());
    let start = |code: i32| {
        let line =
            format!("logits --model {} --prompt Where? --tokens 4 --json", folder.path().display());
        let mut command = command(line.split_whitespace());
        command.env("XDG_CACHE_HOME", shard.join("no folder"));
        run(command).expect(code)
    };
    start(0);
    turn_a_bit(&shard);
    start(2);
}

#[test]
fn a_model_that_does_not_fit_is_refused_before_its_files_are_read() {
    let folder = copied();
    turn_a_bit(&shard(folder.path()));
    let line = format!(
        "logits --model {} --prompt Where? --tokens 4 --json --memory-mb 1",
        folder.path().display()
    );
    let refused = globe(&line).expect(2).stderr;
    assert!(refused.contains("MiB") && !refused.contains("SHA-256"), "{refused}");
}
