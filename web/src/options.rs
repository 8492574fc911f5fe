//! Options as JSON, with the names of the command line.

use globe_engine::{LocateOptions, Sampling};
use globe_geo::Precision;
use globe_text::Prompt;
use serde::Deserialize;

use crate::error::Failure;

/// Options of a locate call; what is absent keeps its default.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    samples: u32,
    batch: u32,
    top_k: usize,
    seed: u64,
    max_tokens: usize,
    max_pixels: Option<usize>,
    precision: Precision,
    sampling: Sampling,
    prompt: Option<String>,
    system: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let options = LocateOptions::default();
        Self {
            samples: options.samples,
            // A page shows one answer after the other; more at once arrive in turns.
            batch: 1,
            top_k: options.top_k,
            seed: options.seed,
            max_tokens: options.max_tokens,
            max_pixels: options.max_pixels,
            precision: options.precision,
            sampling: options.sampling,
            prompt: None,
            system: None,
        }
    }
}

/// Reads the options of a locate call. The caller applies the precision to the result.
pub(crate) fn locate(json: &str) -> Result<(LocateOptions, Precision), Failure> {
    let options: Options = parse(json)?;
    let mut prompt = Prompt::reason();
    if let Some(user) = options.prompt {
        prompt.user = user;
    }
    if let Some(system) = options.system {
        prompt.system = Some(system);
    }
    let read = LocateOptions {
        prompt,
        sampling: options.sampling,
        samples: options.samples,
        batch: Some(options.batch),
        top_k: options.top_k,
        seed: options.seed,
        max_tokens: options.max_tokens,
        max_pixels: options.max_pixels,
        precision: Precision::City,
    };
    Ok((read, options.precision))
}

/// What a comparison with another implementation asks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogitsOptions {
    /// Text after the images.
    pub(crate) prompt: String,
    /// System message; without one, the chat template decides.
    #[serde(default)]
    pub(crate) system: Option<String>,
    /// Greedy tokens to generate.
    pub(crate) tokens: usize,
}

pub(crate) fn parse<T: for<'a> Deserialize<'a>>(json: &str) -> Result<T, Failure> {
    serde_json::from_str(json).map_err(|error| Failure::option(format!("options: {error}")))
}
