//! A folder of checkpoints: `step-00000003/` with a manifest of digests, and `latest`.
//!
//! Saving writes `step-N.tmp/`, every file and last the manifest, each waited for; then renames the
//! folder, then updates `latest`. Whatever is not renamed does not exist; whatever is, is complete.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use globe_format::{Checkpoint, Folder, Mapped};

use super::{Disk, Writer, manifest::Manifest};
use crate::{Error, Result};

/// Names the newest checkpoint, for people and other programs; reading does not rely on it.
pub const LATEST: &str = "latest";

const PREFIX: &str = "step-";
const UNFINISHED: &str = ".tmp";

/// A folder of checkpoints.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    keep: usize,
}

/// A checkpoint whose files all had the digests of its manifest when it was opened. They stay on the
/// disk: what is read is read from there.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Step it was saved at.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
    /// Names of its files, `/` between folders.
    pub files: BTreeSet<String>,
}

impl Loaded {
    /// The bytes of a file.
    ///
    /// # Errors
    /// [`Error::CheckpointCorrupt`] if there is no such file, [`Error::Io`] if it cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.listed(name)?;
        fs::read(&path).map_err(Error::io("cannot read", path))
    }

    /// A file of tensors, which are read one by one.
    ///
    /// # Errors
    /// As [`Loaded::read`], and if it is no safetensors file.
    pub fn tensors(&self, name: &str) -> Result<Checkpoint<Mapped>> {
        let path = self.listed(name)?;
        let folder = Folder::open(path.parent().unwrap_or(&self.path))?;
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(pollster::block_on(Checkpoint::open_file(&folder, &file))?)
    }

    fn listed(&self, name: &str) -> Result<PathBuf> {
        if self.files.contains(name) {
            return Ok(self.path.join(name));
        }
        let (path, reason) = (self.path.clone(), format!("{name} is not part of it"));
        Err(Error::CheckpointCorrupt { path, reason, previous: None })
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

    /// Writes a checkpoint: `write` gives its files. If anything fails, those before it remain as they
    /// were. One that is there already with the same contents is left alone: it is never in danger.
    ///
    /// # Errors
    /// [`Error::Io`] with the file or folder, such as for a full disk, and those of `write`.
    pub fn save(
        &self,
        disk: &mut dyn Disk,
        step: u64,
        write: impl FnOnce(&mut Writer<'_>) -> Result<()>,
    ) -> Result<PathBuf> {
        let done = self.path(step);
        let unfinished = self.root.join(format!("{}{UNFINISHED}", name(step)));
        disk.create_dir(&self.root).map_err(Error::io("cannot make the folder", &self.root))?;
        self.remove_unfinished(disk)?;
        let mut writer = Writer::create(disk, &unfinished, step)?;
        write(&mut writer)?;
        let manifest = writer.finish()?;
        if !Manifest::verified(&done, step).is_ok_and(|there| there == manifest) {
            if done.exists() {
                disk.remove_dir(&done).map_err(Error::io("cannot replace", &done))?;
            }
            disk.rename(&unfinished, &done).map_err(Error::io("cannot rename to", &done))?;
            disk.sync_dir(&self.root).map_err(Error::io("cannot sync", &self.root))?;
        }
        self.point_latest(disk, step)?;
        self.remove_unfinished(disk)?;
        self.remove_old(disk)?;
        Ok(done)
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
    /// has another digest, or with the format if a newer version wrote it.
    pub fn load(&self, step: u64) -> Result<Loaded> {
        let path = self.path(step);
        match Manifest::verified(&path, step) {
            Ok(manifest) => Ok(Loaded { step, path, files: manifest.files.into_keys().collect() }),
            Err(reason) => Err(Error::CheckpointCorrupt { path, reason, previous: None }),
        }
    }

    /// The error that names the checkpoint to go on from, which is the last one; `cause` itself if there
    /// is none.
    pub(crate) fn interrupted(&self, cause: Error) -> Error {
        match self.steps().ok().and_then(|steps| steps.last().copied()) {
            Some(step) => {
                Error::Interrupted { checkpoint: self.path(step), cause: Box::new(cause) }
            }
            None => cause,
        }
    }

    /// Folder of the checkpoint of a step.
    pub fn path(&self, step: u64) -> PathBuf {
        self.root.join(name(step))
    }
}

fn name(step: u64) -> String {
    format!("{PREFIX}{step:08}")
}

#[cfg(test)]
mod tests;
