//! Where results go: standard output, or a file that appears only when it is complete.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::console::print;
use crate::interrupt::Interrupt;

/// A place for results.
pub enum Sink {
    /// Standard output.
    Stdout,
    /// A device or pipe that was named as the output.
    Stream(File),
    /// A new or replaced file.
    File(Replacement),
}

/// A temporary file that takes the place of another when it is complete.
pub struct Replacement {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    interrupt: Interrupt,
    is_complete: bool,
}

impl Sink {
    /// Opens the output; without a path, standard output.
    pub fn open(path: Option<&Path>, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        let context = || format!("cannot write {}", path.display());
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => anyhow::bail!("{}: is a folder", context()),
            // Renaming over /dev/null would replace the device.
            Ok(found) if !found.is_file() => {
                Ok(Self::Stream(File::options().write(true).open(path).with_context(context)?))
            }
            // Behind a link, the file is replaced and the link stays.
            Ok(_) => {
                let target = path.canonicalize().with_context(context)?;
                Ok(Self::File(Replacement::create(target, interrupt).with_context(context)?))
            }
            Err(_) => {
                let target = path.to_owned();
                Ok(Self::File(Replacement::create(target, interrupt).with_context(context)?))
            }
        }
    }

    /// Appends text.
    pub fn write(&mut self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Stdout => print(text).context("cannot write to standard output"),
            Self::Stream(file) => {
                file.write_all(text.as_bytes()).context("cannot write the results")
            }
            Self::File(out) => {
                let context = || format!("cannot write {}", out.temporary.display());
                out.file.write_all(text.as_bytes()).with_context(context)
            }
        }
    }

    /// Makes a file appear under its name.
    pub fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Stdout | Self::Stream(_) => Ok(()),
            Self::File(out) => out.finish(),
        }
    }
}

impl Replacement {
    fn create(target: PathBuf, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let name = target.file_name().context("not a file name")?.to_string_lossy();
        let temporary = target.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        let file = File::options().write(true).create_new(true).open(&temporary)?;
        interrupt.set_partial(Some(temporary.clone()));
        let interrupt = interrupt.clone();
        Ok(Self { file, temporary, target, interrupt, is_complete: false })
    }

    fn finish(mut self) -> anyhow::Result<()> {
        let context = || format!("cannot write {}", self.target.display());
        self.file.sync_all().with_context(context)?;
        fs::rename(&self.temporary, &self.target).with_context(context)?;
        self.is_complete = true;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_complete {
            // Best effort: the reason for giving up is reported elsewhere.
            let _ = fs::remove_file(&self.temporary);
        }
        self.interrupt.set_partial(None);
    }
}
