//! What a finished checkpoint says about its files, and whether they are so.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Digests of all files of a checkpoint.
pub const MANIFEST: &str = "manifest.json";

/// The one format there is.
pub(super) const FORMAT: u32 = 1;

/// Bytes hashed at a time.
const CHUNK_BYTES: usize = 1 << 20;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format: u32,
    pub step: u64,
    pub files: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub size_bytes: u64,
    pub sha256: String,
}

impl Manifest {
    /// The manifest of a folder whose files all are what it says.
    ///
    /// # Errors
    /// The first fault: a file that is missing, too short, too long, or has another digest.
    pub fn verified(folder: &Path, step: u64) -> Result<Self, String> {
        let json = std::fs::read(folder.join(MANIFEST))
            .map_err(|e| format!("{MANIFEST}: cannot read: {e}"))?;
        let manifest: Self =
            serde_json::from_slice(&json).map_err(|e| format!("{MANIFEST}: {e}"))?;
        let Self { format, step: at, .. } = manifest;
        if format > FORMAT {
            return Err(format!(
                "{MANIFEST}: format {format} of a newer version, which can go on from it; this one \
                 knows {FORMAT}"
            ));
        }
        if format != FORMAT || at != step {
            return Err(format!("{MANIFEST}: format {format}, step {at}"));
        }
        for (name, entry) in &manifest.files {
            entry.check(&folder.join(name)).map_err(|reason| format!("{name}: {reason}"))?;
        }
        Ok(manifest)
    }
}

impl Entry {
    fn check(&self, path: &Path) -> Result<(), String> {
        let unreadable = |e: io::Error| format!("cannot read: {e}");
        let mut file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        if size != self.size_bytes {
            return Err(format!("{size} bytes instead of {}", self.size_bytes));
        }
        let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK_BYTES.min(size as usize)]);
        loop {
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => hash.update(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(unreadable(e)),
            }
        }
        match hex(&hash.finalize()) == self.sha256 {
            true => Ok(()),
            false => Err("its SHA-256 is not that of the manifest".into()),
        }
    }
}

/// Bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
