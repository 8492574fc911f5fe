//! How long weights take to reach the adapter, beside reading their bytes.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

/// Bytes read at once: a piece is dropped before the next, so that any model can be read.
const PIECE_BYTES: usize = 64 << 20;

/// Loading, from the first weight until the adapter has every one.
#[derive(Serialize)]
pub struct LoadReport {
    load_seconds: f64,
    /// Reading the files of weights, right afterwards; none for random weights.
    load_read: Option<ReadReport>,
}

/// Reading files once into fresh memory, which any program has to that keeps what it reads.
#[derive(Serialize)]
struct ReadReport {
    bytes: u64,
    seconds: f64,
}

impl LoadReport {
    /// Reads the weights of `folder` once more for comparison: from memory, if they fit.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn new(loaded: Duration, folder: Option<&Path>) -> Result<Self> {
        let load_read = folder.map(read_weights).transpose()?;
        Ok(Self { load_seconds: loaded.as_secs_f64(), load_read })
    }

    /// For people.
    pub fn text(&self) -> String {
        let seconds = self.load_seconds;
        match &self.load_read {
            None => format!("{seconds:8.2} s"),
            Some(read) => format!(
                "{seconds:8.2} s, {:.2} times reading its {:.0} MB",
                seconds / read.seconds,
                read.bytes as f64 / 1e6,
            ),
        }
    }
}

fn read_weights(folder: &Path) -> Result<ReadReport> {
    let start = Instant::now();
    let mut bytes = 0;
    let list = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(folder).with_context(list)? {
        let path = entry.with_context(list)?.path();
        if path.extension().is_some_and(|ext| ext == "safetensors" || ext == "bin") {
            bytes += read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        }
    }
    Ok(ReadReport { bytes, seconds: start.elapsed().as_secs_f64() })
}

fn read(path: &Path) -> std::io::Result<u64> {
    let mut file = File::open(path)?;
    let mut bytes = 0;
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        match (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece)? {
            0 => return Ok(bytes),
            n => bytes += n as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_alone_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, n| fs::write(folder.path().join(name), vec![7; n]).unwrap();
        write("model-00001.bin", PIECE_BYTES + 5);
        write("model.safetensors", 3);
        write("tokenizer.json", 100);
        let report = LoadReport::new(Duration::from_secs(1), Some(folder.path())).unwrap();
        assert_eq!(report.load_read.as_ref().unwrap().bytes, PIECE_BYTES as u64 + 8);
        assert!(report.text().ends_with("times reading its 67 MB"), "{}", report.text());
    }

    #[test]
    fn a_folder_that_went_away_is_named() {
        let gone = Path::new("gone/for/good");
        let error = LoadReport::new(Duration::ZERO, Some(gone)).err().unwrap();
        assert!(error.to_string().contains("gone/for/good"), "{error}");
    }

    #[test]
    fn random_weights_have_no_files() {
        assert_eq!(
            LoadReport::new(Duration::from_millis(1250), None).unwrap().text(),
            "    1.25 s"
        );
    }
}
