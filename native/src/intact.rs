//! A packed folder is compared with its digests before it is first loaded, and again when a file of it has changed.
//!
//! What was compared is kept in the user's cache folder, as names, sizes and times of the files: the next start reads
//! no byte twice. Where nothing can be kept, every start compares; a folder that was just converted is compared like any other.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context;
use globe_format::Folder;
use globe_format::packed::{MANIFEST_FILE, Manifest, verify};

use crate::exit::{Fail, OrUsage};
use crate::progress::Progress;

/// Folder of the records within the user's cache.
const RECORDS: &str = "globe/intact";

/// A packed folder as it stands, of which no earlier comparison is known.
pub struct Unchecked {
    files: String,
    record: Option<PathBuf>,
}

impl Unchecked {
    /// `None` if the folder was compared as it stands, or has no digests.
    pub fn of(folder: &Path) -> Option<Self> {
        let (files, record) = (listing(folder)?, record(folder));
        let known = record.as_ref().and_then(|record| fs::read_to_string(record).ok());
        (known.as_ref() != Some(&files)).then_some(Self { files, record })
    }

    /// Compares every byte.
    ///
    /// # Errors
    /// Naming every file that is missing, truncated or changed, with both digests.
    pub async fn compare(self, folder: &Folder, quiet: bool) -> Result<(), Fail> {
        let progress = Progress::bytes("comparing with its digests", quiet);
        let mut on_bytes = |done: u64, all: u64| {
            progress.set(done as usize, all as usize);
            true
        };
        let compared = verify(folder, &mut on_bytes).await;
        progress.clear();
        let context = || format!("cannot load {}", folder.path().display());
        compared.with_context(context).or_usage()?;
        self.keep();
        Ok(())
    }

    /// Notes that the folder was found intact as it stood when this was made.
    pub fn keep(self) {
        let Some(record) = self.record else { return };
        if let Some(folder) = record.parent() {
            let _ = fs::create_dir_all(folder);
        }
        let _ = fs::write(record, self.files); // without it the next start compares again
    }
}

/// Drops what is known of a folder, which was found damaged.
pub fn forget(folder: &Path) {
    if let Some(record) = record(folder) {
        let _ = fs::remove_file(record); // there may be none
    }
}

/// Where the folder stands, and name, size and time of each file of its manifest; `None` without one.
fn listing(folder: &Path) -> Option<String> {
    let manifest = fs::read(folder.join(MANIFEST_FILE)).ok()?;
    let manifest = Manifest::parse(&manifest).ok()?;
    let mut listing = format!("{}\n", fs::canonicalize(folder).ok()?.display());
    let files = manifest.shards.iter().chain(&manifest.files).map(|file| file.name.as_str());
    for name in files.chain([MANIFEST_FILE]) {
        let found = fs::metadata(folder.join(name)).ok().and_then(|found| {
            let changed = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some((found.len(), changed.as_nanos(), identity(&found)))
        });
        listing.push_str(&format!("{name:?} {found:?}\n"));
    }
    Some(listing)
}

/// What a copy does not keep, even one that keeps times.
#[cfg(unix)]
fn identity(found: &fs::Metadata) -> (u64, u64, i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino(), found.ctime(), found.ctime_nsec())
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) {}

/// The record of a folder; its first line says which one, should two share a hash.
fn record(folder: &Path) -> Option<PathBuf> {
    let mut hash = DefaultHasher::new();
    fs::canonicalize(folder).ok()?.hash(&mut hash);
    Some(dirs::cache_dir()?.join(RECORDS).join(format!("{:016x}", hash.finish())))
}
