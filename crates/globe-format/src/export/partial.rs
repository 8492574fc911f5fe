//! The folder that is written before it gets its name.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf, absolute},
};

use super::plan::Plan;
use crate::{
    error::{Error, Result},
    pack::{
        disk::{Disk, sync_folder},
        write_error,
    },
};

/// Ending of its name.
const ENDING: &str = ".partial";

/// Removed with all that is in it, unless it is finished.
pub(super) struct Partial {
    path: PathBuf,
    out: PathBuf,
    is_finished: bool,
}

impl Partial {
    /// Creates the folder beside `out`, in place of one that an earlier run left.
    pub(super) fn create(out: &Path, plan: &Plan<'_>) -> Result<Self> {
        let fail = |error| write_error(&out.display().to_string(), plan.total_bytes, error);
        if let Some(found) = first_name(out).map_err(fail)? {
            return Err(Error::OutputTaken { found });
        }
        let out = if out.exists() { out.canonicalize() } else { absolute(out) }.map_err(fail)?;
        let Some(name) = out.file_name() else {
            return Err(fail(io::Error::new(ErrorKind::InvalidInput, "the folder has no name")));
        };
        let mut name = name.to_owned();
        name.push(ENDING);
        let path = out.with_file_name(name);
        clear(&path, plan)?;
        fs::create_dir_all(&path).map_err(fail)?;
        Ok(Self { path, out, is_finished: false })
    }

    /// Writes into it.
    pub(super) fn disk(&self) -> Result<Disk> {
        Disk::create(self.path.clone()).map_err(|error| self.fail(error))
    }

    /// Gives it its name.
    pub(super) fn finish(mut self) -> Result<()> {
        self.publish().map_err(|error| self.fail(error))?;
        self.is_finished = true;
        Ok(())
    }

    fn publish(&self) -> io::Result<()> {
        if self.out.exists() {
            fs::remove_dir(&self.out)?; // fails unless it is still empty
        }
        fs::rename(&self.path, &self.out)?;
        self.out.parent().map_or(Ok(()), sync_folder)
    }

    fn fail(&self, error: io::Error) -> Error {
        write_error(&self.out.display().to_string(), 0, error)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_finished {
            // Best effort: the next run does the same.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes what an earlier run left, and only that.
fn clear(path: &Path, plan: &Plan<'_>) -> Result<()> {
    let fail = |error| write_error(&path.display().to_string(), 0, error);
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(fail)?,
    };
    for entry in entries {
        let name = entry.map_err(fail)?.file_name();
        if !name.to_str().is_some_and(|name| plan.may_have_written(name)) {
            return Err(Error::OutputTaken { found: path.join(name).display().to_string() });
        }
    }
    fs::remove_dir_all(path).map_err(fail)
}

/// A name in the folder, or `None` if it is empty or absent.
fn first_name(folder: &Path) -> io::Result<Option<String>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        entries => match entries?.next() {
            None => Ok(None),
            Some(entry) => Ok(Some(entry?.file_name().display().to_string())),
        },
    }
}
