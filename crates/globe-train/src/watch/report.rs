//! A report to browse: curves, and sample answers with photos and reward parts.
//!
//! `index.html` needs no server and no network. Photos lie beside it in `photos/`, each once; what
//! was sampled is kept in `samples.jsonl`, so that a run that goes on keeps its report.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::read_metrics;
use crate::{
    Error, Result,
    trainer::{Observer, SampleReport, StepStats, TrainEvent},
};

mod html;

/// Photos in the page, the newest; all stay in `samples.jsonl`.
const MAX_SHOWN: usize = 200;

const SAMPLES: &str = "samples.jsonl";

/// A photo with its answers, as kept in `samples.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    step: u64,
    id: String,
    truth: String,
    /// Path of the photo within the folder.
    photo: String,
    names: Vec<String>,
    answers: Vec<EntryAnswer>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct EntryAnswer {
    text: String,
    parts: Vec<Option<f64>>,
    total: Option<f64>,
    advantage: f64,
    truncated: bool,
    tokens: usize,
}

/// Writes the report whenever there are new samples, and at the end.
pub struct Report {
    folder: PathBuf,
    /// Curves come from here.
    metrics: PathBuf,
    entries: Vec<Entry>,
}

impl Report {
    /// A report in `folder` with the curves of the metrics file.
    pub fn new(folder: impl Into<PathBuf>, metrics: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), metrics: metrics.into(), entries: Vec::new() }
    }

    /// Keeps the samples of generations before `step`; that of `step` itself comes again.
    fn open(&mut self, step: u64) -> Result<()> {
        let photos = self.folder.join("photos");
        fs::create_dir_all(&photos).map_err(Error::io("cannot make the folder", &photos))?;
        let path = self.folder.join(SAMPLES);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let known = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        self.entries = known.filter(|entry| entry.step < step).collect();
        let kept: String = self.entries.iter().map(line).collect();
        fs::write(&path, kept).map_err(Error::io("cannot write", &path))
    }

    fn add(&mut self, step: u64, samples: &[SampleReport]) -> Result<()> {
        let path = self.folder.join(SAMPLES);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::io("cannot open", &path))?;
        for sample in samples {
            let entry = self.entry(step, sample)?;
            file.write_all(line(&entry).as_bytes()).map_err(Error::io("cannot write", &path))?;
            self.entries.push(entry);
        }
        Ok(())
    }

    fn entry(&self, step: u64, sample: &SampleReport) -> Result<Entry> {
        let digest = Sha256::digest(&sample.image);
        let name: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
        let photo = format!("photos/{name}.{}", extension(&sample.image));
        let path = self.folder.join(&photo);
        if !path.exists() {
            fs::write(&path, &sample.image).map_err(Error::io("cannot write", &path))?;
        }
        let answers = sample.answers.iter().map(|a| EntryAnswer {
            text: a.text.clone(),
            parts: a.parts.clone(),
            total: a.total,
            advantage: a.advantage,
            truncated: a.truncated,
            tokens: a.tokens,
        });
        Ok(Entry {
            step,
            id: sample.id.clone(),
            truth: sample.truth.clone(),
            photo,
            names: sample.names.clone(),
            answers: answers.collect(),
        })
    }

    fn write(&self) -> Result<()> {
        let steps = if self.metrics.exists() { read_metrics(&self.metrics)? } else { Vec::new() };
        let shown = &self.entries[self.entries.len().saturating_sub(MAX_SHOWN)..];
        let page = html::page(&curves(&steps), shown, self.entries.len());
        let (path, next) = (self.folder.join("index.html"), self.folder.join("index.html.tmp"));
        fs::write(&next, page).map_err(Error::io("cannot write", &next))?;
        fs::rename(&next, &path).map_err(Error::io("cannot rename to", &path))
    }

    /// The page.
    pub fn path(&self) -> PathBuf {
        self.folder.join("index.html")
    }
}

impl Observer for Report {
    fn on(&mut self, event: &TrainEvent<'_>) -> Result<()> {
        match event {
            TrainEvent::Started { step, .. } => self.open(*step),
            TrainEvent::Samples { step, samples } => {
                self.add(*step, samples)?;
                self.write()
            }
            TrainEvent::Ended { .. } => self.write(),
            _ => Ok(()),
        }
    }
}

fn line(entry: &Entry) -> String {
    serde_json::to_string(entry).map_or_else(|_| String::new(), |text| text + "\n")
}

fn extension(image: &[u8]) -> &'static str {
    match image {
        [0x89, b'P', ..] => "png",
        [b'R', b'I', b'F', b'F', ..] => "webp",
        [b'G', b'I', b'F', ..] => "gif",
        _ => "jpg",
    }
}

/// Points per metric, in order of names.
fn curves(steps: &[StepStats]) -> BTreeMap<String, Vec<(f64, f64)>> {
    let mut curves: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for step in steps {
        for (name, &value) in step.values.iter().filter(|(_, v)| v.is_finite()) {
            curves.entry(name.clone()).or_default().push((step.step as f64, value));
        }
    }
    curves
}

/// The report of a run that is over, from its files.
///
/// # Errors
/// [`Error::Io`].
pub fn rewrite(folder: &Path, metrics: &Path) -> Result<PathBuf> {
    let mut report = Report::new(folder, metrics);
    report.open(u64::MAX)?;
    report.write()?;
    Ok(report.path())
}

#[cfg(test)]
mod tests;
