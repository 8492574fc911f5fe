//! Who is compared, and what each is asked to do.

#[cfg(feature = "candle")]
mod candle;
mod globe;
#[cfg(feature = "llama")]
mod llama;

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::args::Work;
use crate::error::{Error, Result};
use crate::report::Measured;
use crate::tower::Tower;

/// A program or library that runs language models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// This project, on the adapter that it chooses
    Globe,
    /// llama.cpp on the Vulkan device that --vulkan-device names
    LlamaVulkan,
    /// llama.cpp on the CPU
    LlamaCpu,
    /// candle on the CPU
    Candle,
}

impl Peer {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Globe, Self::LlamaVulkan, Self::LlamaCpu, Self::Candle];

    /// Whether it reads the tower of a file.
    pub fn reads_towers(self) -> bool {
        matches!(self, Self::LlamaVulkan | Self::LlamaCpu)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Globe => "globe",
            Self::LlamaVulkan => "llama.cpp Vulkan",
            Self::LlamaCpu => "llama.cpp CPU",
            Self::Candle => "candle CPU",
        })
    }
}

/// One peer's part, which runs in a process of its own: what it leaves behind, and an abort within
/// it, is not the next one's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Who.
    pub peer: Peer,
    /// What.
    pub work: Work,
    /// The model, for those that read one.
    pub gguf: PathBuf,
    /// Its tower, for those that read one.
    pub tower: Tower,
    /// The program, for globe.
    pub globe: PathBuf,
    /// What `globe bench --device` is given.
    pub globe_device: String,
    /// Among llama.cpp's Vulkan devices.
    pub vulkan_device: usize,
}

impl Job {
    /// Runs it in this process.
    ///
    /// # Errors
    /// If this peer cannot do the work here.
    pub fn run(&self) -> Result<Measured> {
        match self.peer {
            Peer::Globe => globe::measure(self),
            #[cfg(feature = "llama")]
            Peer::LlamaCpu => llama::measure(self, llama::Place::Cpu),
            #[cfg(feature = "vulkan")]
            Peer::LlamaVulkan => llama::measure(self, llama::Place::Vulkan),
            #[cfg(feature = "candle")]
            Peer::Candle => candle::measure(self),
            #[cfg(not(feature = "llama"))]
            Peer::LlamaCpu => Err(Error::Feature("llama")),
            #[cfg(not(feature = "vulkan"))]
            Peer::LlamaVulkan => Err(Error::Feature("vulkan")),
            #[cfg(not(feature = "candle"))]
            Peer::Candle => Err(Error::Feature("candle")),
        }
    }
}

/// Tokens of the greedy answer that are kept, to see whether two peers ran the same model.
#[cfg(any(feature = "llama", feature = "candle"))]
const FIRST_TOKENS: usize = 8;

/// Ids that differ, from anywhere in the vocabulary: those of `globe bench`.
#[cfg(any(feature = "llama", feature = "candle", test))]
fn prompt(work: &Work) -> Vec<u32> {
    let vocab = work.shape.dims().vocab;
    (0..work.prompt).map(|i| (i * 7919 % vocab) as u32).collect()
}

/// The `n` likeliest tokens, the likeliest first.
///
/// # Errors
/// [`Error::NotFinite`] if a logit is no number.
#[cfg(any(feature = "llama", feature = "candle", test))]
fn likeliest(logits: &[f32], n: usize) -> Result<Vec<u32>> {
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(n + 1);
    for (id, logit) in (0u32..).zip(logits) {
        if !logit.is_finite() {
            return Err(Error::NotFinite);
        }
        if best.len() < n || best.last().is_some_and(|(least, _)| logit > least) {
            let at = best.partition_point(|(other, _)| other >= logit);
            best.insert(at, (*logit, id));
            best.truncate(n);
        }
    }
    Ok(best.into_iter().map(|(_, id)| id).collect())
}

/// In the peer's words.
#[cfg(any(feature = "llama", feature = "candle"))]
fn refused<E: fmt::Display>(step: &'static str) -> impl Fn(E) -> Error {
    move |e| Error::Peer { step, reason: e.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    #[test]
    fn the_likeliest_come_first_and_the_earlier_of_two_equals() {
        let logits = [0.5, 2.0, -1.0, 2.0, 1.0];
        assert_eq!(likeliest(&logits, 3).unwrap(), [1, 3, 4]);
        assert_eq!(likeliest(&logits, 9).unwrap(), [1, 3, 4, 0, 2]);
        assert!(matches!(likeliest(&[0.0, f32::NAN], 1), Err(Error::NotFinite)));
    }

    #[test]
    fn prompts_stay_within_the_vocabulary() {
        let work = Work { prompt: 500, ..Work::example(Shape::Half) };
        let ids = prompt(&work);
        assert_eq!((ids.len(), ids[0], ids[1]), (500, 0, 7919));
        assert!(ids.iter().all(|id| *id < 32_000));
    }
}
