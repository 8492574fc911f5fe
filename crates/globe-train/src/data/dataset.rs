//! The rows of all data files, in blocks that are read together.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Sample, parquet, table};
use crate::{Error, Result};

/// All rows of one or several files.
#[derive(Debug)]
pub struct Dataset {
    sources: Vec<Source>,
    images: PathBuf,
    blocks: Vec<Block>,
}

#[derive(Debug)]
enum Source {
    /// Photos inside: read by row group.
    Parquet(PathBuf),
    /// Photos beside: rows are small and kept.
    Table(Vec<Sample>),
}

/// Rows that are read together.
#[derive(Clone, Copy, Debug)]
struct Block {
    source: usize,
    /// Row group of a parquet file.
    group: usize,
    first_row: usize,
    rows: usize,
}

impl Dataset {
    /// Opens `path`: a `.parquet`, `.jsonl` or `.csv` file, or a folder of such files, in the order
    /// of their names. Relative photo paths start at `images`, or at the data file's folder.
    ///
    /// # Errors
    /// [`Error::Data`] for the first bad row of a JSONL or CSV file (bad parquet rows show when
    /// read), [`Error::EmptyData`] without rows, and errors of the files.
    pub fn open(path: &Path, images: Option<&Path>) -> Result<Self> {
        let files = data_files(path)?;
        let folder = if path.is_dir() { Some(path) } else { path.parent() };
        let images = images.or(folder).unwrap_or(Path::new("")).to_owned();
        let mut out = Self { sources: Vec::new(), images, blocks: Vec::new() };
        for file in files {
            out.add(&file)?;
        }
        if out.is_empty() {
            return Err(Error::EmptyData { path: path.into() });
        }
        Ok(out)
    }

    fn add(&mut self, file: &Path) -> Result<()> {
        let source = self.sources.len();
        if extension(file) == "parquet" {
            let mut first_row = 0;
            for (group, rows) in parquet::group_rows(file)?.into_iter().enumerate() {
                self.blocks.push(Block { source, group, first_row, rows });
                first_row += rows;
            }
            self.sources.push(Source::Parquet(file.into()));
            return Ok(());
        }
        let samples: Result<Vec<Sample>> = read_table(file, &self.images)?.into_iter().collect();
        let samples = samples?;
        self.blocks.push(Block { source, group: 0, first_row: 0, rows: samples.len() });
        self.sources.push(Source::Table(samples));
        Ok(())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.blocks.iter().map(|b| b.rows).sum()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows per block.
    pub fn block_rows(&self) -> Vec<usize> {
        self.blocks.iter().map(|b| b.rows).collect()
    }

    /// All rows of a block.
    ///
    /// # Errors
    /// If the file cannot be read any more; errors of single rows stay with their rows.
    pub fn read_block(&self, block: usize) -> Result<Vec<Result<Sample>>> {
        let Block { source, group, first_row, .. } = self.blocks[block];
        match &self.sources[source] {
            Source::Parquet(file) => parquet::read_group(file, group, first_row, &self.images),
            Source::Table(samples) => Ok(samples.iter().cloned().map(Ok).collect()),
        }
    }

    /// Every clue of every row, for the lexicon of the visual reward. Reads all files once.
    ///
    /// # Errors
    /// If a file cannot be read. Bad rows are left out here; they are reported when their turn comes.
    pub fn clues(&self) -> Result<std::collections::BTreeSet<String>> {
        let mut clues = std::collections::BTreeSet::new();
        for block in 0..self.blocks.len() {
            let rows = self.read_block(block)?;
            clues.extend(rows.into_iter().flatten().flat_map(|sample| sample.clues));
        }
        Ok(clues)
    }
}

/// All rows of a JSONL or CSV file.
pub(super) fn read_table(file: &Path, images: &Path) -> Result<Vec<Result<Sample>>> {
    match extension(file).as_str() {
        "csv" => table::read_csv(file, images),
        _ => table::read_jsonl(file, images),
    }
}

/// The data files at `path`.
pub(super) fn data_files(path: &Path) -> Result<Vec<PathBuf>> {
    let known = |file: &Path| matches!(extension(file).as_str(), "parquet" | "jsonl" | "csv");
    if !path.is_dir() {
        return match known(path) || !path.exists() {
            true => {
                fs::metadata(path).map_err(Error::io("cannot open the data", path))?;
                Ok(vec![path.into()])
            }
            false => Err(Error::DataFormat { path: path.into() }),
        };
    }
    let entries = fs::read_dir(path).map_err(Error::io("cannot list the data folder", path))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(Error::io("cannot list the data folder", path))?.path();
        if known(&file) {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(Error::DataFormat { path: path.into() }) } else { Ok(files) }
}

pub(super) fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}
