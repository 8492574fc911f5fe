//! TensorBoard event files: records of protocol buffers, framed as TFRecord.
//!
//! A record is its length (u64), the masked CRC-32C of the length, the bytes, and the masked CRC-32C
//! of the bytes, little-endian. The messages are `Event`, `Summary` and `SessionLog`; only the
//! fields used here are written.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    Error, Result,
    trainer::{Observer, StepStats, TrainEvent},
};

const WIRE_VARINT: u64 = 0;
const WIRE_FIXED64: u64 = 1;
const WIRE_BYTES: u64 = 2;
const WIRE_FIXED32: u64 = 5;

/// Writes one event file per process; TensorBoard joins those of a folder.
pub struct EventFile {
    folder: PathBuf,
    clock: fn() -> f64,
    file: Option<(File, PathBuf)>,
}

impl EventFile {
    /// A new file in `folder`, opened when the run starts.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), clock: now_s, file: None }
    }

    fn open(&mut self, step: u64) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .map_err(Error::io("cannot make the folder", &self.folder))?;
        let seconds = (self.clock)();
        let name = format!("events.out.tfevents.{}.globe.{step}", seconds as u64);
        let path = self.folder.join(name);
        let file = File::create(&path).map_err(Error::io("cannot make", &path))?;
        self.file = Some((file, path));
        self.write(&version(seconds))?;
        // Tells TensorBoard to forget what an earlier process logged beyond this step.
        self.write(&session_start(seconds, step + 1))
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        let Some((file, path)) = &mut self.file else {
            return Ok(());
        };
        file.write_all(&record(event)).map_err(Error::io("cannot write", path.as_path()))
    }
}

impl Observer for EventFile {
    fn on(&mut self, event: &TrainEvent<'_>) -> Result<()> {
        match event {
            TrainEvent::Started { step, .. } => self.open(*step),
            TrainEvent::Step(stats) => {
                let bytes = scalars((self.clock)(), stats);
                self.write(&bytes)
            }
            _ => Ok(()),
        }
    }
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let parts = [&length[..], &masked_crc(&length), bytes, &masked_crc(bytes)];
    parts.concat()
}

/// TFRecord stores checksums rotated and offset, so that a checksum of checksums stays sound.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8).to_le_bytes()
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    tag(out, field, WIRE_BYTES);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// `Event { wall_time = 1, step = 2 }`.
fn event(seconds: f64, step: u64) -> Vec<u8> {
    let mut out = Vec::new();
    tag(&mut out, 1, WIRE_FIXED64);
    out.extend_from_slice(&seconds.to_le_bytes());
    if step > 0 {
        tag(&mut out, 2, WIRE_VARINT);
        varint(&mut out, step);
    }
    out
}

/// `Event { file_version = 3 }`.
fn version(seconds: f64) -> Vec<u8> {
    let mut out = event(seconds, 0);
    bytes_field(&mut out, 3, b"brain.Event:2");
    out
}

/// `Event { session_log = 7 { status = 1: START } }`.
fn session_start(seconds: f64, step: u64) -> Vec<u8> {
    let mut out = event(seconds, step);
    bytes_field(&mut out, 7, &[1 << 3 | WIRE_VARINT as u8, 1]);
    out
}

/// `Event { summary = 5 { value = 1 { tag = 1, simple_value = 2 } … } }`.
fn scalars(seconds: f64, stats: &StepStats) -> Vec<u8> {
    let mut summary = Vec::new();
    for (name, &value) in &stats.values {
        let mut entry = Vec::new();
        bytes_field(&mut entry, 1, name.as_bytes());
        tag(&mut entry, 2, WIRE_FIXED32);
        entry.extend_from_slice(&(value as f32).to_le_bytes());
        bytes_field(&mut summary, 1, &entry);
    }
    let mut out = event(seconds, stats.step);
    bytes_field(&mut out, 5, &summary);
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn stats(step: u64, values: &[(&str, f64)]) -> StepStats {
        let values = values.iter().map(|(name, v)| ((*name).to_owned(), *v)).collect();
        StepStats { step, values }
    }

    #[test]
    fn checksums_are_those_of_the_format() {
        // The check value of CRC-32C.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(record(b"")[..8], [0; 8]);
        assert_eq!(record(b"ab").len(), 8 + 4 + 2 + 4);
    }

    /// Two processes; the second goes on after step 1. `verify.py` has read these bytes with
    /// TensorBoard.
    #[test]
    fn files_are_those_tensorboard_has_read() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/events_rust");
        let temp = tempfile::tempdir().unwrap();
        let folder = match std::env::var_os("GLOBE_BLESS") {
            Some(_) => golden.clone(),
            None => temp.path().into(),
        };
        let write = |clock: fn() -> f64, step, steps: &[StepStats]| {
            let mut file = EventFile { clock, ..EventFile::new(&folder) };
            file.on(&TrainEvent::Started { step, total: 2, weights: &[] }).unwrap();
            steps.iter().for_each(|s| file.on(&TrainEvent::Step(s)).unwrap());
        };
        let last = [("reward", 0.5), ("rewards/geo/mean", -1.0)];
        write(|| 1.5e9, 0, &[stats(1, &[("reward", 0.25)]), stats(2, &[("reward", 9.0)])]);
        write(|| 1.5e9 + 60.0, 1, &[stats(2, &last)]);
        let mut names: Vec<_> =
            fs::read_dir(&golden).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), 2);
        for name in names {
            assert!(fs::read(folder.join(&name)).unwrap() == fs::read(golden.join(&name)).unwrap());
        }
    }
}
