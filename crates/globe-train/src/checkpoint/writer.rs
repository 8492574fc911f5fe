//! Files of a checkpoint as they are written, piece by piece and hashed on the way.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    Disk,
    manifest::{Entry, FORMAT, MANIFEST, Manifest, hex},
};
use crate::{Error, Result};

/// Values turned into bytes at a time.
const CHUNK_VALUES: usize = 1 << 20;

/// A checkpoint while it is written: one file after the other, then the manifest.
pub struct Writer<'a> {
    disk: &'a mut dyn Disk,
    folder: PathBuf,
    /// The folder and those within it, the outermost first.
    folders: Vec<PathBuf>,
    manifest: Manifest,
    open: Option<OpenFile>,
}

/// The file that pieces go to.
struct OpenFile {
    name: String,
    path: PathBuf,
    file: File,
    hash: Sha256,
    size_bytes: u64,
}

impl<'a> Writer<'a> {
    /// A checkpoint of `step` in `folder`, which must not exist.
    pub(super) fn create(disk: &'a mut dyn Disk, folder: &Path, step: u64) -> Result<Self> {
        disk.create_dir(folder).map_err(Error::io("cannot make the folder", folder))?;
        let manifest = Manifest { format: FORMAT, step, files: Default::default() };
        let (folder, folders) = (folder.to_owned(), vec![folder.to_owned()]);
        Ok(Self { disk, folder, folders, manifest, open: None })
    }

    /// Begins the file `name`, with `/` between folders; the one before is complete.
    ///
    /// # Errors
    /// [`Error::Io`] with the file or folder, such as for a full disk.
    pub fn begin(&mut self, name: &str) -> Result<()> {
        self.end()?;
        let path = self.folder.join(name);
        if let Some(parent) = path.parent().filter(|p| !self.folders.iter().any(|f| f == p)) {
            self.disk.create_dir(parent).map_err(Error::io("cannot make the folder", parent))?;
            self.folders.push(parent.to_owned());
        }
        let file = self.disk.create(&path).map_err(Error::io("cannot write", &path))?;
        let hash = Sha256::new();
        self.open = Some(OpenFile { name: name.to_owned(), path, file, hash, size_bytes: 0 });
        Ok(())
    }

    /// Adds to the file that was begun last.
    ///
    /// # Errors
    /// As [`Writer::begin`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(open) = &mut self.open else {
            let reason = std::io::Error::other("no file was begun");
            return Err(Error::io("cannot write", &self.folder)(reason));
        };
        let written = self.disk.append(&mut open.file, bytes);
        written.map_err(Error::io("cannot write", &open.path))?;
        open.hash.update(bytes);
        open.size_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Adds values as safetensors files have them, little-endian.
    ///
    /// # Errors
    /// As [`Writer::begin`].
    pub fn append_f32(&mut self, values: &[f32]) -> Result<()> {
        let mut bytes = Vec::with_capacity(size_of::<f32>() * values.len().min(CHUNK_VALUES));
        for chunk in values.chunks(CHUNK_VALUES) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
            self.append(&bytes)?;
        }
        Ok(())
    }

    /// Writes a whole file.
    ///
    /// # Errors
    /// As [`Writer::begin`].
    pub fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.begin(name)?;
        self.append(bytes)
    }

    /// Waits until the file is on the disk and notes its digest.
    fn end(&mut self) -> Result<()> {
        let Some(OpenFile { name, path, file, hash, size_bytes }) = self.open.take() else {
            return Ok(());
        };
        self.disk.sync(&file).map_err(Error::io("cannot write", &path))?;
        let sha256 = hex(&hash.finalize());
        self.manifest.files.insert(name, Entry { size_bytes, sha256 });
        Ok(())
    }

    /// The manifest, once everything is on the disk, this included.
    pub(super) fn finish(mut self) -> Result<Manifest> {
        self.end()?;
        let path = self.folder.join(MANIFEST);
        let json = serde_json::to_vec_pretty(&self.manifest)
            .map_err(|e| Error::io("cannot write", &path)(e.into()))?;
        self.disk.write(&path, &json).map_err(Error::io("cannot write", &path))?;
        for folder in self.folders.iter().rev() {
            self.disk.sync_dir(folder).map_err(Error::io("cannot sync", folder))?;
        }
        Ok(self.manifest)
    }
}
