//! The few file operations a checkpoint consists of, so that tests can make each of them fail.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// What the store asks of a disk, in the order it asks.
pub trait Disk {
    /// Makes a folder and its parents.
    fn create_dir(&mut self, path: &Path) -> io::Result<()>;
    /// Makes an empty file.
    fn create(&mut self, path: &Path) -> io::Result<File>;
    /// Adds to a file.
    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    /// Waits until a file is on the disk.
    fn sync(&mut self, file: &File) -> io::Result<()>;
    /// Waits until the entries of a folder are on the disk.
    fn sync_dir(&mut self, path: &Path) -> io::Result<()>;
    /// Renames a file or folder, replacing a file.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a folder with its contents.
    fn remove_dir(&mut self, path: &Path) -> io::Result<()>;

    /// Writes a whole file and waits until it is on the disk.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create(path)?;
        self.append(&mut file, bytes)?;
        self.sync(&file)
    }
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn create(&mut self, path: &Path) -> io::Result<File> {
        File::create(path)
    }

    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Windows cannot open folders and orders renames itself.
    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }
}
