//! A folder of checkpoints: `step-00000003/` with a manifest of digests, and `latest`.
//!
//! Saving writes `step-N.tmp/`, every file and last the manifest, each waited for; then renames the
//! folder, then updates `latest`. Whatever is not renamed does not exist; whatever is, is complete.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Disk;
use crate::{Error, Result};

/// Digests of all files of a checkpoint.
pub const MANIFEST: &str = "manifest.json";

/// Names the newest checkpoint, for people and other programs; reading does not rely on it.
pub const LATEST: &str = "latest";

const PREFIX: &str = "step-";
const UNFINISHED: &str = ".tmp";
const FORMAT: u32 = 1;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    step: u64,
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    size_bytes: u64,
    sha256: String,
}

/// A folder of checkpoints.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    keep: usize,
}

/// A checkpoint whose files all have the digests of its manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Step it was saved at.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
    /// Files by name within the folder, `/` between folders.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Loaded {
    /// The bytes of a file.
    ///
    /// # Errors
    /// [`Error::CheckpointCorrupt`] if there is no such file.
    pub fn file(&self, name: &str) -> Result<&[u8]> {
        self.files.get(name).map(Vec::as_slice).ok_or_else(|| Error::CheckpointCorrupt {
            path: self.path.clone(),
            reason: format!("{name} is not part of it"),
            previous: None,
        })
    }
}

impl Store {
    /// Checkpoints in `root`, of which the newest `keep` are kept; 0 keeps all.
    pub fn new(root: impl Into<PathBuf>, keep: usize) -> Self {
        Self { root: root.into(), keep }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a checkpoint. If anything fails, those before it remain as they were. One that is
    /// there already with the same contents is left alone: it is never in danger.
    ///
    /// # Errors
    /// [`Error::Io`] with the file or folder, such as for a full disk.
    pub fn save(
        &self,
        disk: &mut dyn Disk,
        step: u64,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<PathBuf> {
        let done = self.path(step);
        let same = done.exists() && self.load(step).is_ok_and(|there| there.files == *files);
        if !same {
            self.write_checkpoint(disk, step, &done, files)?;
        }
        self.point_latest(disk, step)?;
        self.remove_unfinished(disk)?;
        self.remove_old(disk)?;
        Ok(done)
    }

    fn write_checkpoint(
        &self,
        disk: &mut dyn Disk,
        step: u64,
        done: &Path,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<()> {
        let unfinished = self.root.join(format!("{}{UNFINISHED}", name(step)));
        disk.create_dir(&self.root).map_err(Error::io("cannot make the folder", &self.root))?;
        self.remove_unfinished(disk)?;
        self.write_files(disk, step, &unfinished, files)?;
        if done.exists() {
            disk.remove_dir(done).map_err(Error::io("cannot replace", done))?;
        }
        disk.rename(&unfinished, done).map_err(Error::io("cannot rename to", done))?;
        disk.sync_dir(&self.root).map_err(Error::io("cannot sync", &self.root))
    }

    fn write_files(
        &self,
        disk: &mut dyn Disk,
        step: u64,
        folder: &Path,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<()> {
        let mut manifest = Manifest { format: FORMAT, step, files: BTreeMap::new() };
        let mut folders = vec![folder.to_owned()];
        disk.create_dir(folder).map_err(Error::io("cannot make the folder", folder))?;
        for (name, bytes) in files {
            let path = folder.join(name);
            if let Some(parent) = path.parent().filter(|p| !folders.iter().any(|f| f == p)) {
                disk.create_dir(parent).map_err(Error::io("cannot make the folder", parent))?;
                folders.push(parent.to_owned());
            }
            disk.write(&path, bytes).map_err(Error::io("cannot write", &path))?;
            let entry = Entry { size_bytes: bytes.len() as u64, sha256: sha256(bytes) };
            manifest.files.insert(name.clone(), entry);
        }
        let path = folder.join(MANIFEST);
        let json = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| Error::io("cannot write", &path)(e.into()))?;
        disk.write(&path, &json).map_err(Error::io("cannot write", &path))?;
        for folder in folders.iter().rev() {
            disk.sync_dir(folder).map_err(Error::io("cannot sync", folder))?;
        }
        Ok(())
    }

    fn point_latest(&self, disk: &mut dyn Disk, step: u64) -> Result<()> {
        let (latest, next) = (self.root.join(LATEST), self.root.join("latest.tmp"));
        let text = format!("{}\n", name(step));
        if fs::read_to_string(&latest).is_ok_and(|there| there == text) {
            return Ok(());
        }
        disk.write(&next, text.as_bytes()).map_err(Error::io("cannot write", &next))?;
        disk.rename(&next, &latest).map_err(Error::io("cannot rename to", &latest))?;
        disk.sync_dir(&self.root).map_err(Error::io("cannot sync", &self.root))
    }

    fn remove_unfinished(&self, disk: &mut dyn Disk) -> Result<()> {
        for (file, _) in self.entries()?.iter().filter(|(file, _)| file.ends_with(UNFINISHED)) {
            let path = self.root.join(file);
            disk.remove_dir(&path).map_err(Error::io("cannot remove", &path))?;
        }
        Ok(())
    }

    fn remove_old(&self, disk: &mut dyn Disk) -> Result<()> {
        let steps = self.steps()?;
        let too_many = if self.keep == 0 { 0 } else { steps.len().saturating_sub(self.keep) };
        for &step in &steps[..too_many] {
            let path = self.path(step);
            disk.remove_dir(&path).map_err(Error::io("cannot remove", &path))?;
        }
        Ok(())
    }

    /// Steps of all finished checkpoints, oldest first. Nothing is verified here.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be listed; a folder that is not there has no checkpoints.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let mut steps: Vec<u64> =
            self.entries()?.into_iter().filter_map(|(_, step)| step).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Names of sub-folders that begin like checkpoints, with the step of finished ones.
    fn entries(&self) -> Result<Vec<(String, Option<u64>)>> {
        if !self.root.exists() {
            return Ok(Vec::new());
        }
        let list = fs::read_dir(&self.root).map_err(Error::io("cannot list", &self.root))?;
        let mut out = Vec::new();
        for entry in list {
            let entry = entry.map_err(Error::io("cannot list", &self.root))?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if let Some(number) = file.strip_prefix(PREFIX).filter(|_| entry.path().is_dir()) {
                let step = number.parse().ok();
                out.push((file, step));
            }
        }
        Ok(out)
    }

    /// The newest checkpoint, verified; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::CheckpointCorrupt`] if the newest is damaged, with the newest sound one before it:
    /// going back is a decision of the caller, through [`Store::load`].
    pub fn newest(&self) -> Result<Option<Loaded>> {
        let steps = self.steps()?;
        let Some(&step) = steps.last() else {
            return Ok(None);
        };
        match self.load(step) {
            Err(Error::CheckpointCorrupt { path, reason, .. }) => {
                let sound = steps.iter().rev().skip(1).find(|&&s| self.load(s).is_ok());
                let previous = sound.map(|&s| self.path(s));
                Err(Error::CheckpointCorrupt { path, reason, previous })
            }
            other => other.map(Some),
        }
    }

    /// The checkpoint of a step, verified.
    ///
    /// # Errors
    /// [`Error::CheckpointCorrupt`] with the first file that is missing, too short, too long, or
    /// has another digest.
    pub fn load(&self, step: u64) -> Result<Loaded> {
        let path = self.path(step);
        let corrupt = |reason: String| Error::CheckpointCorrupt {
            path: path.clone(),
            reason,
            previous: None,
        };
        let read = |file: &str| {
            fs::read(path.join(file)).map_err(|e| corrupt(format!("{file}: cannot read: {e}")))
        };
        let manifest: Manifest = serde_json::from_slice(&read(MANIFEST)?)
            .map_err(|e| corrupt(format!("{MANIFEST}: {e}")))?;
        if manifest.format != FORMAT || manifest.step != step {
            let (format, at) = (manifest.format, manifest.step);
            return Err(corrupt(format!("{MANIFEST}: format {format}, step {at}")));
        }
        let mut files = BTreeMap::new();
        for (name, entry) in manifest.files {
            let bytes = read(&name)?;
            if bytes.len() as u64 != entry.size_bytes {
                let size = bytes.len();
                return Err(corrupt(format!(
                    "{name}: {size} bytes instead of {}",
                    entry.size_bytes
                )));
            }
            if sha256(&bytes) != entry.sha256 {
                return Err(corrupt(format!("{name}: its SHA-256 is not that of the manifest")));
            }
            files.insert(name, bytes);
        }
        Ok(Loaded { step, path, files })
    }

    /// Folder of the checkpoint of a step.
    pub fn path(&self, step: u64) -> PathBuf {
        self.root.join(name(step))
    }
}

fn name(step: u64) -> String {
    format!("{PREFIX}{step:08}")
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
