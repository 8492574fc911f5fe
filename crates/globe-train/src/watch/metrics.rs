//! `metrics.jsonl`: one object per step.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::{
    Error, Result,
    trainer::{Observer, StepStats, TrainEvent},
};

/// Appends a line per step. When a run goes on from a checkpoint, lines beyond it are removed.
pub struct MetricsFile {
    path: PathBuf,
    file: Option<File>,
}

impl MetricsFile {
    /// Nothing is opened before the run starts.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None }
    }

    /// Keeps the lines of steps up to `step`, and opens the file for more.
    fn open(&mut self, step: u64) -> Result<()> {
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).map_err(Error::io("cannot make the folder", parent))?;
        }
        if self.path.exists() {
            let kept: String = fs::read_to_string(&self.path)
                .map_err(Error::io("cannot read", &self.path))?
                .lines()
                .filter(|line| step_of(line).is_some_and(|s| s <= step))
                .flat_map(|line| [line, "\n"])
                .collect();
            let next = self.path.with_extension("jsonl.tmp");
            fs::write(&next, kept).map_err(Error::io("cannot write", &next))?;
            fs::rename(&next, &self.path).map_err(Error::io("cannot rename to", &self.path))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        self.file = Some(file.map_err(Error::io("cannot open", &self.path))?);
        Ok(())
    }
}

impl Observer for MetricsFile {
    fn on(&mut self, event: &TrainEvent<'_>) -> Result<()> {
        match event {
            TrainEvent::Started { step, .. } => self.open(*step),
            TrainEvent::Step(stats) => match &mut self.file {
                Some(file) => file
                    .write_all(line(stats).as_bytes())
                    .map_err(Error::io("cannot write", &self.path)),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// `{"step":1,"grad_norm":…}`; a value that is no number is `null`, as JSON knows no NaN.
fn line(stats: &StepStats) -> String {
    let mut fields = Map::new();
    fields.insert("step".into(), stats.step.into());
    fields.extend(stats.values.iter().map(|(name, &value)| (name.clone(), Value::from(value))));
    format!("{}\n", Value::Object(fields))
}

/// None for a line cut off by a crash.
fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<Value>(line).ok()?.get("step")?.as_u64()
}

/// Steps of a file, for reports and comparisons; lines cut off by a crash are left out.
///
/// # Errors
/// [`Error::Io`].
pub fn read_metrics(path: &Path) -> Result<Vec<StepStats>> {
    let text = fs::read_to_string(path).map_err(Error::io("cannot read", path))?;
    let read = |line: &str| {
        let Ok(Value::Object(fields)) = serde_json::from_str(line) else { return None };
        let step = fields.get("step")?.as_u64()?;
        let values: BTreeMap<String, f64> = fields
            .into_iter()
            .filter(|(name, _)| name != "step")
            .filter_map(|(name, value)| Some((name, value.as_f64()?)))
            .collect();
        Some(StepStats { step, values })
    };
    Ok(text.lines().filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(step: u64, reward: f64) -> StepStats {
        StepStats { step, values: BTreeMap::from([("reward".to_owned(), reward)]) }
    }

    fn start(step: u64) -> TrainEvent<'static> {
        TrainEvent::Started { step, total: 9, weights: &[] }
    }

    #[test]
    fn going_on_removes_what_came_after_the_checkpoint() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("run/metrics.jsonl");
        let mut first = MetricsFile::new(&path);
        first.on(&start(0)).unwrap();
        for step in 1..=5 {
            first.on(&TrainEvent::Step(&stats(step, step as f64 / 3.0))).unwrap();
        }
        drop(first);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"step\":6,\"rew").unwrap();

        let mut second = MetricsFile::new(&path);
        second.on(&start(3)).unwrap();
        second.on(&TrainEvent::Step(&stats(4, f64::NAN))).unwrap();
        let got = read_metrics(&path).unwrap();
        assert_eq!(got.iter().map(|s| s.step).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(got[0], stats(1, 1.0 / 3.0));
        assert!(got[3].values.is_empty(), "NaN is null");
        assert!(fs::read_to_string(&path).unwrap().ends_with("{\"reward\":null,\"step\":4}\n"));
    }

    #[test]
    fn a_path_that_cannot_be_written_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let mut file = MetricsFile::new(temp.path());
        assert!(matches!(file.on(&start(0)), Err(Error::Io { .. })));
    }
}
