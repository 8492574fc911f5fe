//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser};
use serde::{Deserialize, Serialize};

use crate::peer::Peer;
use crate::shape::Shape;
use crate::tower::TOKEN_SIDE;

/// Measure globe beside llama.cpp and candle: the same shapes, one machine, one run.
///
/// A model of random weights is written to a temporary folder. Each peer computes the same prompt
/// and the same number of tokens in a process of its own, one after the other. The table goes to
/// standard output; who could not run is listed with the reason.
#[derive(Debug, Parser)]
#[command(
    name = "peers",
    version,
    after_help = "\
Examples:
  peers --shape 0.5b --prompt 128 --tokens 32 --globe-device software
  peers --shape 3b --prompt 512 --tokens 128 --repeats 5 --json 3b.json --plot 3b.svg
  peers --peers globe,llama-vulkan --vulkan-device 1"
)]
pub struct Cli {
    /// What is measured.
    #[command(flatten)]
    pub work: Work,
    /// Who is measured
    #[arg(long, value_enum, value_name = "PEER,PEER", value_delimiter = ',', default_values_t = Peer::ALL)]
    pub peers: Vec<Peer>,
    /// The globe program [default: of the target folder, else of PATH]
    #[arg(long, value_name = "FILE")]
    pub globe: Option<PathBuf>,
    /// What globe computes on: auto, gpu or software
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub globe_device: String,
    /// Which of its Vulkan devices llama.cpp computes on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub vulkan_device: usize,
    /// Of the random weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Write everything that was measured
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw it, as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// A job in JSON, which this process runs and answers in JSON.
    #[arg(long, hide = true)]
    pub job: Option<String>,
}

/// What every peer is asked to do.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub struct Work {
    /// Size of the model
    #[arg(long, value_enum, default_value = "0.5b")]
    pub shape: Shape,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value = "128", value_parser = count::<1, 16_384>)]
    pub prompt: usize,
    /// Tokens of each answer
    #[arg(long, value_name = "N", default_value = "32", value_parser = count::<3, 8192>)]
    pub tokens: usize,
    /// Side of a square image in pixels, a multiple of 28; 0 leaves the tower out
    #[arg(long, value_name = "PIXELS", default_value = "224", value_parser = side)]
    pub image: usize,
    /// Answers at once, one measurement for each number
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,16", value_parser = count::<1, 64>)]
    pub batch: Vec<usize>,
    /// Measurements of each kind, of which the median counts
    #[arg(long, value_name = "N", default_value = "5", value_parser = count::<1, 1000>)]
    pub repeats: usize,
    /// Threads of what runs on the CPU
    #[arg(long, value_name = "N", default_value = "2", value_parser = count::<1, 512>)]
    pub threads: usize,
}

impl Work {
    /// Steps of an answer that are timed: the prompt gives the first token, and the step that
    /// gives the second is where programs set up what they use again.
    #[cfg(any(feature = "llama", feature = "candle"))]
    pub fn timed_steps(&self) -> usize {
        self.tokens - 2
    }

    /// As without options.
    #[cfg(test)]
    pub fn example(shape: Shape) -> Self {
        Self {
            shape,
            prompt: 128,
            tokens: 32,
            image: 224,
            batch: vec![1, 16],
            repeats: 5,
            threads: 2,
        }
    }
}

/// A number within a range.
fn count<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (MIN..=MAX).contains(&n) => Ok(n),
        _ => Err(format!("a number from {MIN} to {MAX} is needed")),
    }
}

/// Pixels that make whole tokens, and as many as llama.cpp leaves as they are.
fn side(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Ok(0),
        Ok(n) if (84..=1792).contains(&n) && n.is_multiple_of(TOKEN_SIDE) => Ok(n),
        _ => Err("0 or a multiple of 28 from 84 to 1792 is needed".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_options_all_peers_do_the_usual_work() {
        let cli = Cli::try_parse_from(["peers"]).unwrap();
        assert_eq!(cli.peers, Peer::ALL);
        assert_eq!((cli.work.prompt, cli.work.image, cli.work.batch), (128, 224, vec![1, 16]));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for (option, value) in [
            ("--tokens", "2"),
            ("--prompt", "0"),
            ("--batch", "1,0"),
            ("--batch", "1000"),
            ("--repeats", "0"),
            ("--threads", "many"),
            ("--image", "225"),
            ("--image", "56"),
            ("--peers", "globe,gpt"),
        ] {
            assert!(Cli::try_parse_from(["peers", option, value]).is_err(), "{option} {value}");
        }
    }
}
