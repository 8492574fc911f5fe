//! What a checkpoint belongs to: base weights, tokenizer and wording.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use globe_text::Prompt;
use sha2::{Digest, Sha256};

/// Bytes hashed at each end of a large file.
const END_BYTES: u64 = 1 << 20;
/// Files whose change makes another model.
const ENDINGS: [&str; 5] = [".safetensors", ".bin", ".json", ".jinja", ".gguf"];

/// A digest of the files of a model folder and of the wording. Files over 2 MiB count by name, size
/// and both ends, so that 15 GB of weights take no time.
///
/// # Errors
/// If a file cannot be read.
pub fn identity(folder: &Path, prompt: &Prompt) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ENDINGS.iter().any(|ending| name.ends_with(ending)) && entry.path().is_file() {
            names.push(name);
        }
    }
    names.sort_unstable();
    let mut hash = Sha256::new();
    for name in names {
        let mut file = File::open(folder.join(&name))?;
        let size = file.metadata()?.len();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(&name);
        hash.update(size.to_le_bytes());
        let mut bytes = Vec::new();
        if size <= 2 * END_BYTES {
            file.read_to_end(&mut bytes)?;
        } else {
            file.by_ref().take(END_BYTES).read_to_end(&mut bytes)?;
            file.seek(SeekFrom::End(-(END_BYTES as i64)))?;
            file.read_to_end(&mut bytes)?;
        }
        hash.update(&bytes);
    }
    hash.update(prompt.sha256());
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
