use std::{collections::BTreeMap, fs::File, io};

use super::*;
use crate::checkpoint::{MANIFEST, RealDisk};

type Files = BTreeMap<String, Vec<u8>>;

fn files(text: &str) -> Files {
    let file = |name: &str| (name.to_owned(), format!("{name} {text}").into_bytes());
    BTreeMap::from([file("adapter/config.json"), file("state.json"), file("weights")])
}

/// Writes each file in pieces of three bytes.
fn save(store: &Store, disk: &mut dyn Disk, step: u64, files: &Files) -> Result<PathBuf> {
    store.save(disk, step, |to| {
        files.iter().try_for_each(|(name, bytes)| {
            to.begin(name)?;
            bytes.chunks(3).try_for_each(|piece| to.append(piece))
        })
    })
}

fn contents(loaded: &Loaded) -> Files {
    loaded.files.iter().map(|name| (name.clone(), loaded.read(name).unwrap())).collect()
}

/// Works until its operations are used up, then dies: the last one happens in part.
struct Dying {
    operations: usize,
}

impl Dying {
    /// True when this operation still happens.
    fn lives(&mut self) -> bool {
        let lives = self.operations > 0;
        self.operations = self.operations.saturating_sub(1);
        lives
    }

    fn dead() -> io::Result<()> {
        Err(io::Error::other("killed"))
    }
}

impl Disk for Dying {
    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.lives() { RealDisk.create_dir(path) } else { Self::dead() }
    }

    fn create(&mut self, path: &Path) -> io::Result<File> {
        if self.lives() { RealDisk.create(path) } else { Err(io::Error::other("killed")) }
    }

    /// Dies with half of the piece written.
    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if self.lives() {
            return RealDisk.append(file, bytes);
        }
        RealDisk.append(file, &bytes[..bytes.len() / 2])?;
        Self::dead()
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        if self.lives() { RealDisk.sync(file) } else { Self::dead() }
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.lives() { RealDisk.sync_dir(path) } else { Self::dead() }
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if self.lives() { RealDisk.rename(from, to) } else { Self::dead() }
    }

    /// Dies with half of the folder gone.
    fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.lives() {
            return RealDisk.remove_dir(path);
        }
        fs::remove_file(path.join("weights")).ok();
        Self::dead()
    }
}

#[test]
fn what_was_saved_is_loaded_and_old_ones_go() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::new(temp.path().join("checkpoints"), 2);
    assert_eq!(store.newest().unwrap(), None);
    for step in [1, 2, 10] {
        save(&store, &mut RealDisk, step, &files(&step.to_string())).unwrap();
    }
    assert_eq!(store.steps().unwrap(), [2, 10]);
    let newest = store.newest().unwrap().unwrap();
    assert_eq!((newest.step, contents(&newest)), (10, files("10")));
    assert_eq!(newest.read("weights").unwrap(), b"weights 10");
    assert!(newest.read("absent").is_err() && newest.tensors("weights").is_err());
    assert_eq!(fs::read_to_string(store.root().join(LATEST)).unwrap(), "step-00000010\n");
    // The same again leaves it alone, whenever that dies; another of the same step, as after going
    // back, replaces it.
    for operations in 0.. {
        let again = save(&store, &mut Dying { operations }, 10, &files("10"));
        assert_eq!(contents(&store.load(10).unwrap()), files("10"));
        if again.is_ok() {
            break;
        }
    }
    save(&store, &mut RealDisk, 10, &files("again")).unwrap();
    assert_eq!(contents(&store.newest().unwrap().unwrap()), files("again"));
}

/// Dies at every operation of a save in turn; what is there afterwards is always whole.
#[test]
fn a_crash_at_any_operation_leaves_a_whole_checkpoint() {
    let mut crashes = 0;
    for operations in 0.. {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::new(temp.path(), 1);
        save(&store, &mut RealDisk, 1, &files("one")).unwrap();
        let result = save(&store, &mut Dying { operations }, 2, &files("two"));
        let newest = store.newest().unwrap().unwrap();
        let want = if newest.step == 1 { files("one") } else { files("two") };
        assert_eq!(contents(&newest), want, "after {operations} operations");
        if result.is_ok() {
            assert_eq!(newest.step, 2);
            break;
        }
        crashes += 1;
        // The run goes on and saves again.
        save(&store, &mut RealDisk, 2, &files("two")).unwrap();
        let newest = store.newest().unwrap().unwrap();
        assert_eq!(
            (newest.step, contents(&newest)),
            (2, files("two")),
            "after {operations} operations"
        );
        assert_eq!(store.steps().unwrap(), [2]);
        let left: Vec<_> =
            fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|f| !f.to_string_lossy().ends_with(".tmp")), "{left:?}");
    }
    assert!(crashes >= 39, "only {crashes} places to crash were tried");
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_one_before_is_offered() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::new(temp.path(), 0);
    for step in [1, 2, 3] {
        save(&store, &mut RealDisk, step, &files("x")).unwrap();
    }
    fs::write(store.path(2).join("state.json"), "short").unwrap();
    let weights = store.path(3).join("weights");
    let mut bytes = fs::read(&weights).unwrap();
    bytes[3] ^= 1;
    fs::write(&weights, &bytes).unwrap();

    let error = store.newest().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("step-00000003") && text.contains("weights: its SHA-256"), "{text}");
    assert!(text.contains("step-00000001"), "the damaged one before is passed over: {text}");
    assert!(store.load(1).is_ok());
    assert!(store.load(2).unwrap_err().to_string().contains("state.json: 5 bytes instead of"));
    fs::remove_file(store.path(3).join(MANIFEST)).unwrap();
    assert!(store.newest().unwrap_err().to_string().contains("manifest.json: cannot read"));
    fs::remove_dir_all(store.path(1)).unwrap();
    assert!(store.newest().unwrap_err().to_string().contains("no sound checkpoint before it"));
}

/// A policy that fails half way, such as for a lost device.
#[test]
fn what_fails_to_give_its_files_leaves_what_was_there() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::new(temp.path(), 1);
    save(&store, &mut RealDisk, 1, &files("one")).unwrap();
    let result = store.save(&mut RealDisk, 2, |to| {
        to.begin("weights")?;
        to.append_f32(&[1.0, 2.0])?;
        Err(Error::MissingTensor { name: "gone".into() })
    });
    assert!(matches!(result, Err(Error::MissingTensor { .. })));
    assert_eq!(contents(&store.newest().unwrap().unwrap()), files("one"));
    let nothing_begun = store.save(&mut RealDisk, 2, |to| to.append(b"x")).unwrap_err();
    assert!(nothing_begun.to_string().contains("no file was begun"), "{nothing_begun}");
}

#[test]
fn a_manifest_of_a_newer_version_is_refused_with_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::new(temp.path(), 0);
    save(&store, &mut RealDisk, 1, &files("x")).unwrap();
    let manifest = store.path(1).join(MANIFEST);
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let error = store.load(1).unwrap_err().to_string();
    assert!(error.contains("format 2 of a newer version"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_with_its_path() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = save(&Store::new(&file, 1), &mut RealDisk, 1, &files("x")).unwrap_err();
    assert!(error.to_string().contains("file: cannot make the folder"), "{error}");
}
