//! The only place of this crate that writes files.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
};

/// Ending of a file that is being written.
pub(crate) const TEMPORARY: &str = ".tmp";

/// The file operations of a conversion, so that a test can stop between any two.
pub(crate) trait OutFolder {
    /// Names of everything in the folder.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Starts the file `name`, under a temporary name.
    fn create(&mut self, name: &str) -> io::Result<()>;

    /// Adds bytes to the file that was started.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes sure that the bytes are on the disk.
    fn sync(&mut self) -> io::Result<()>;

    /// Gives the file its name, in place of an older one.
    fn publish(&mut self) -> io::Result<()>;

    /// Removes the file that was started, if it can be removed.
    fn discard(&mut self);

    /// Removes a file if there is one.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// A folder on disk.
pub(crate) struct Disk {
    path: PathBuf,
    open: Option<(String, File)>,
    /// Whether to wait until bytes are on the disk.
    is_synced: bool,
}

impl Disk {
    /// Creates the folder if need be.
    pub(crate) fn create(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self { path, open: None, is_synced: true })
    }

    /// For tests, which do not outlive a power cut.
    #[cfg(test)]
    pub(crate) fn unsynced(path: PathBuf) -> io::Result<Self> {
        Ok(Self { is_synced: false, ..Self::create(path)? })
    }

    fn file(&mut self) -> io::Result<&mut File> {
        self.open.as_mut().map(|(_, file)| file).ok_or_else(no_file)
    }
}

fn no_file() -> io::Error {
    io::Error::other("no file was started")
}

impl OutFolder for Disk {
    fn names(&self) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().display().to_string());
        fs::read_dir(&self.path)?.map(name).collect()
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let file = File::create(self.path.join(format!("{name}{TEMPORARY}")))?;
        self.open = Some((name.into(), file));
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file()?.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let is_synced = self.is_synced;
        let file = self.file()?;
        if is_synced { file.sync_all() } else { Ok(()) }
    }

    fn publish(&mut self) -> io::Result<()> {
        let (name, file) = self.open.take().ok_or_else(no_file)?;
        drop(file);
        let temporary = self.path.join(format!("{name}{TEMPORARY}"));
        fs::rename(temporary, self.path.join(name))?;
        if self.is_synced { sync_folder(&self.path) } else { Ok(()) }
    }

    fn discard(&mut self) {
        if let Some((name, file)) = self.open.take() {
            drop(file);
            let _ = fs::remove_file(self.path.join(format!("{name}{TEMPORARY}")));
        }
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A rename is safe once the folder is on the disk; other systems than Unix do not offer it.
pub(crate) fn sync_folder(path: &std::path::Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}
