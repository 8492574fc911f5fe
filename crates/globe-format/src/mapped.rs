//! A local folder, its files mapped into memory: the only file access of this crate.

use std::{
    borrow::Cow,
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use crate::{
    error::{Error, Result},
    source::{Files, Source, is_plain_name, slice},
};

/// A model folder on disk.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder at `path`. Files are opened when asked for.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            return Err(Error::NotAFolder { path: path.display().to_string() });
        }
        Ok(Self { path: path.into() })
    }

    /// The path given to [`Folder::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Files for Folder {
    type Source = Mapped;

    async fn open(&self, name: &str) -> io::Result<Option<Mapped>> {
        if !is_plain_name(name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name"));
        }
        match Mapped::open(&self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            mapped => mapped.map(Some),
        }
    }
}

/// A file mapped into memory.
#[derive(Debug)]
pub struct Mapped(Mmap);

impl Mapped {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "a folder, not a file"));
        }
        // SAFETY: the map is read-only and outlives no borrow of it. Another process that changes
        // the file meanwhile changes these bytes, and one that shortens it makes reads fault.
        // Model files are written once, and every value is checked after it is read.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self(map))
    }
}

impl Source for Mapped {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        slice(&self.0, range).map(Cow::Borrowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::read_file;

    #[test]
    fn reads_a_folder() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("a.bin"), [1, 2, 3]).unwrap();
        std::fs::write(temp.path().join("empty"), []).unwrap();
        std::fs::create_dir(temp.path().join("sub")).unwrap();

        let folder = Folder::open(temp.path()).unwrap();
        assert_eq!(folder.path(), temp.path());
        let read = |name| pollster::block_on(read_file(&folder, name));
        assert_eq!(read("a.bin").unwrap(), Some(vec![1, 2, 3]));
        assert_eq!(read("empty").unwrap(), Some(vec![]));
        assert_eq!(read("absent").unwrap(), None);
        assert!(matches!(read("sub").unwrap_err(), Error::Open { .. }));
        assert!(matches!(read("../a.bin").unwrap_err(), Error::Open { .. }));

        let mapped = pollster::block_on(folder.open("a.bin")).unwrap().unwrap();
        assert!(matches!(pollster::block_on(mapped.read(0..2)).unwrap(), Cow::Borrowed([1, 2])));
    }

    #[test]
    fn a_file_is_not_a_folder() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let error = Folder::open(temp.path()).unwrap_err();
        assert!(
            error.to_string().ends_with("pass the folder that holds config.json and the weights")
        );
    }
}
