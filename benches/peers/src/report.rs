//! What was measured, as it is written to a file.

use serde::{Deserialize, Serialize};

use crate::args::Work;
use crate::peer::Peer;
use crate::stats::Rate;

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    /// In UTC, RFC 3339.
    pub date: String,
    /// Of this repository; `-dirty` if it has changes.
    pub commit: Option<String>,
    /// Of the CPU.
    pub cpu: String,
    /// Threads that the machine has.
    pub cpu_threads: usize,
    /// Vector instructions that the peers were compiled for.
    pub compiled_for: Vec<&'static str>,
    /// What was asked for.
    pub work: Work,
    /// Of the random weights.
    pub seed: u64,
    /// Bytes of the model that llama.cpp and candle read, and of the tower that llama.cpp reads.
    pub gguf_bytes: u64,
    /// In the order of the table.
    pub peers: Vec<Entry>,
}

/// One peer.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Which.
    pub peer: Peer,
    /// What came out.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came out, which a peer's process answers with as well.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran.
    Measured(Box<Measured>),
    /// It did not, and why.
    NotRun(String),
}

/// What a peer did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// What it computed on.
    pub adapter: String,
    /// Its own.
    pub version: String,
    /// From the file to a model that can compute.
    pub load_seconds: f64,
    /// One image.
    pub image: Image,
    /// One prompt.
    pub prefill: Rate,
    /// Answers to one prompt, in the order that was asked for.
    pub decode: Vec<Decode>,
    /// The start of the greedy answer, for those that read the same file.
    pub first_tokens: Option<Vec<u32>>,
    /// The peer's own report, if it has one.
    pub report: Option<serde_json::Value>,
}

/// One image; neither rate nor reason if none was asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Image {
    /// How fast.
    pub rate: Option<Rate>,
    /// Why it has no rate.
    pub not_run: Option<String>,
}

impl Image {
    /// Measured.
    pub fn new(rate: Rate) -> Self {
        Self { rate: Some(rate), not_run: None }
    }

    /// Not measured.
    #[cfg(any(feature = "llama", feature = "candle", test))]
    pub fn not(reason: &str) -> Self {
        Self { rate: None, not_run: Some(reason.to_string()) }
    }
}

/// Some answers at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Decode {
    /// How many.
    pub batch: usize,
    /// How fast, per step of all.
    pub rate: Option<Rate>,
    /// Why it has no rate.
    pub not_run: Option<String>,
}

impl Decode {
    /// Measured.
    pub fn new(batch: usize, rate: Rate) -> Self {
        Self { batch, rate: Some(rate), not_run: None }
    }

    /// Not measured.
    #[cfg(any(feature = "candle", test))]
    pub fn not(batch: usize, reason: &str) -> Self {
        Self { batch, rate: None, not_run: Some(reason.to_string()) }
    }
}

impl Report {
    /// What `peer` did, if it ran.
    pub fn measured(&self, peer: Peer) -> Option<&Measured> {
        self.peers.iter().find(|entry| entry.peer == peer)?.outcome.measured()
    }
}

impl Outcome {
    /// What was measured, if it was.
    pub fn measured(&self) -> Option<&Measured> {
        match self {
            Self::Measured(measured) => Some(measured),
            Self::NotRun(_) => None,
        }
    }
}

impl Measured {
    /// The rate of `batch` answers at once.
    pub fn decode(&self, batch: usize) -> Option<Rate> {
        self.decode.iter().find(|decode| decode.batch == batch)?.rate
    }
}

/// The version of a dependency, which the lock file fixes.
#[cfg(any(feature = "llama", feature = "candle", test))]
pub fn locked_version(package: &str) -> &'static str {
    let name = format!("name = \"{package}\"");
    let lock = include_str!("../Cargo.lock");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = "));
    version.map_or("unknown", |version| version.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_file() {
        assert!(locked_version("llama-cpp-sys-2").starts_with("0.1."));
        assert!(locked_version("candle-core").starts_with("0.11."));
        assert_eq!(locked_version("no-such-package"), "unknown");
    }

    #[test]
    fn outcomes_survive_the_way_from_one_process_to_the_other() {
        let rate = Rate::new(4, vec![2.0]);
        let measured = Measured {
            adapter: "a".into(),
            version: "v".into(),
            load_seconds: 0.5,
            image: Image::new(rate),
            prefill: rate,
            decode: vec![Decode::new(1, rate), Decode::not(16, "why")],
            first_tokens: Some(vec![1, 2]),
            report: None,
        };
        let text = serde_json::to_string(&Outcome::Measured(Box::new(measured))).unwrap();
        let read: Outcome = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(read.measured().unwrap().decode(1), Some(rate));
        assert_eq!(read.measured().unwrap().decode(16), None);
        let text = serde_json::to_string(&Outcome::NotRun("why".into())).unwrap();
        assert_eq!(text, r#"{"not_run":"why"}"#);
    }
}
