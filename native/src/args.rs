//! Arguments. Each doc comment is the help text.

use std::path::PathBuf;

use anyhow::Context;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use globe_engine::{LocateOptions, Sampling};
use globe_geo::Precision;
use globe_ops::DeviceChoice;
use globe_text::Prompt;

use crate::console::print;
use crate::exit::{Exit, Fail, OrUsage};
use crate::input::read_text;
use crate::memory::MemoryArgs;

/// Find out where a photo may have been taken, on this machine and without a network.
#[derive(Debug, Parser)]
#[command(name = "globe", version = env!("GLOBE_VERSION"), arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  globe locate photo.jpg --model MODEL_DIR
  globe geocode \"Paris, France\"
  globe devices")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What globe can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Locate(LocateArgs),
    Geocode(GeocodeArgs),
    Inspect(InspectArgs),
    Convert(ConvertArgs),
    Export(ExportArgs),
    Verify(VerifyArgs),
    Devices(DevicesArgs),
    Logits(LogitsArgs),
    Bench(BenchArgs),
    Compare(CompareArgs),
    Train(TrainArgs),
    Data(DataArgs),
    Completions(CompletionsArgs),
}

/// Compare two versions of a model: what quantization costs
///
/// The first model answers each image greedily; that answer is forced on both, and their logits
/// are compared token by token.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  globe compare MODEL_DIR MODEL_Q4_DIR --images PHOTO_DIR
  globe compare MODEL_DIR MODEL_Q8_DIR --images PHOTO_DIR --json"
)]
pub struct CompareArgs {
    /// The model that is right
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// The model that is measured against it
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// Folder of images; files of other kinds are passed over
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// Tokens of each forced answer
    #[arg(long, value_name = "N", default_value = "32", value_parser = at_least_one)]
    pub tokens: usize,
    /// Most pixels of an image after resizing [default: the limit of the model]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_pixels: Option<usize>,
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// What computes
    #[arg(long, default_value = "auto", value_parser = device_parser())]
    pub device: DeviceChoice,
    /// Hold the first model in f32 and compute it with the plain kernels
    #[arg(long)]
    pub reference: bool,
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Measure how fast an adapter answers, beside how fast it could
///
/// Without --model, weights are random and of the size that --shape names: the code path is the
/// same. Copy bandwidth and arithmetic are measured first.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  globe bench --shape 0.5b --device software
  globe bench --model MODEL_DIR --batch 1,4,16 --json
  globe bench train --shape 0.5b --prompt 128 --tokens 16 --batch 4"
)]
pub struct BenchArgs {
    /// Besides answers, what else to measure
    #[arg(value_enum)]
    pub what: Option<BenchWhat>,
    /// Model folder [default: random weights]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Size of the random model
    #[arg(long, value_enum, default_value = "0.5b", conflicts_with = "model")]
    pub shape: crate::bench::Shape,
    /// Bits per weight of the random model; its tower has at least 8
    #[arg(long, value_name = "4|8|16|32", default_value_t = 4, conflicts_with = "model")]
    pub bits: u32,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value = "512", value_parser = at_least_one)]
    pub prompt: usize,
    /// Tokens of each answer
    #[arg(long, value_name = "N", default_value = "128", value_parser = at_least_three)]
    pub tokens: usize,
    /// Answers at once, one measurement for each number
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,4,16", value_parser = at_least_one)]
    pub batch: Vec<usize>,
    /// Side of the image in pixels; 0 leaves the tower out
    #[arg(long, value_name = "PIXELS", default_value_t = 224)]
    pub image: usize,
    /// Measurements of each kind, of which the median counts
    #[arg(long, value_name = "N", default_value = "5", value_parser = at_least_one)]
    pub repeats: usize,
    /// What computes
    #[arg(long, default_value = "auto", value_parser = device_parser())]
    pub device: DeviceChoice,
    /// Hold weights in f32 and compute with the plain kernels, one answer at a time
    #[arg(long, requires = "model", conflicts_with_all = ["batch", "what", "shape", "bits"])]
    pub reference: bool,
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What `globe bench` measures besides answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchWhat {
    /// A training step: an adapter of rank 16, as many answers as the largest --batch
    Train,
}

/// Train an adapter or all weights of a model: by reward (grpo), by example (sft), or to judge (reward)
///
/// All settings are in one TOML file; `configs/` has examples in which every key is explained.
/// Checkpoints go to `run.output`; a run that ends, however it ends, goes on with --resume.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  globe data check photos.parquet
  globe train grpo --config configs/tiny.toml --dry-run
  globe train grpo --config configs/tiny.toml
  globe train grpo --config configs/tiny.toml --resume

Exit codes:
  0    all steps are done
  1    training failed; a message names the checkpoint to go on from, if there is one
  2    wrong usage, or the model, data or device cannot be used
  130  stopped by Ctrl-C, SIGTERM or SIGHUP
Ctrl-C, like the other two, stops after the current step, with a checkpoint; a second one stops at
once. Before training begins the first one does."
)]
pub struct TrainArgs {
    /// What is learnt
    #[arg(value_enum)]
    pub method: crate::train::Method,
    /// The settings
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Go on from the newest checkpoint of `run.output`, or from that of a step
    #[arg(long, value_name = "STEP", num_args = 0..=1)]
    pub resume: Option<Option<u64>>,
    /// Go on although settings that matter have changed
    #[arg(long, visible_alias = "allow", requires = "resume")]
    pub allow_changes: bool,
    /// What computes, instead of `model.device`
    #[arg(long, value_parser = PossibleValuesParser::new(DEVICES))]
    pub device: Option<String>,
    /// Print what the run does, the memory it takes and the least time a step takes
    #[arg(long, conflicts_with = "resume")]
    pub dry_run: bool,
    /// Only errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// Look at training data before training does
#[derive(Debug, Args)]
pub struct DataArgs {
    /// What to do
    #[command(subcommand)]
    pub command: DataCommand,
}

/// What can be done with training data.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Read every row and decode every photo, and list what training would stumble over
    #[command(after_help = "\
Exit codes: 0 if training would neither stop nor leave anything out, 4 otherwise, 2 if the data cannot be read")]
    Check {
        /// A .parquet, .jsonl or .csv file, or a folder of such files
        path: PathBuf,
        /// Folder that relative photo paths start at [default: the folder of the data]
        #[arg(long, value_name = "DIR")]
        images: Option<PathBuf>,
    },
}

/// Locate photos: sample answers of a model and rank the places they name
///
/// The votes of a place count the answers that named it. They are not probabilities, and those of
/// different images are not comparable. A position that a file holds is shown apart; the model
/// never sees it.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  globe locate photo.jpg --model MODEL_DIR
  globe locate *.jpg --format csv --out places.csv
  globe locate photo.jpg --format json --samples 16 --precision country --quiet

Exit codes:
  0    every image was located
  1    internal failure
  2    wrong usage, or the model or device cannot be used
  3    every image was answered, but at least one was not located
  4    at least one image could not be read or answered
  130  interrupted; results of the images before are kept
Ctrl-C stops between two steps; a second one stops at once and keeps no output file."
)]
pub struct LocateArgs {
    /// JPEG, PNG, WebP or GIF files
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Answers to sample per image
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: u32,
    /// Answers to sample at once; an error if memory does not suffice [default: what fits, up to 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: Option<u32>,
    /// Most places to show per image
    #[arg(long, value_name = "N", default_value = "5", value_parser = at_least_one)]
    pub top_k: usize,
    /// Equal seeds give equal answers on one device
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Most tokens per answer
    #[arg(long, value_name = "N", default_value = "512", value_parser = at_least_one)]
    pub max_tokens: usize,
    /// Most pixels of an image after resizing [default: the limit of the model]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_pixels: Option<usize>,
    /// How results are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Write results to a file, which appears when it is complete [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How precisely places are shown
    #[arg(long, default_value = "city", value_parser = precision_parser())]
    pub precision: Precision,
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// No progress and no model text, only errors
    #[arg(long, short)]
    pub quiet: bool,
    // Last: its heading would cover what follows.
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

impl LocateArgs {
    /// What the engine is asked to do.
    pub fn options(&self) -> Result<LocateOptions, Fail> {
        let sampling = self.sampling.sampling();
        sampling.check().or_usage()?;
        Ok(LocateOptions {
            prompt: self.prompt.read()?,
            sampling,
            samples: self.samples,
            batch: self.batch,
            top_k: self.top_k,
            seed: self.seed,
            max_tokens: self.max_tokens,
            max_pixels: self.max_pixels,
            precision: self.precision,
        })
    }
}

/// What is asked about a photo.
#[derive(Debug, Args)]
pub struct PromptArgs {
    /// File with the text that follows the image [default: the built-in prompt]
    #[arg(long, value_name = "FILE")]
    pub prompt: Option<PathBuf>,
    /// File with the system message [default: that of the built-in prompt]
    #[arg(long, value_name = "FILE")]
    pub system: Option<PathBuf>,
}

impl PromptArgs {
    /// The built-in prompt with what the files replace of it.
    pub fn read(&self) -> Result<Prompt, Fail> {
        let mut prompt = Prompt::reason();
        if let Some(path) = &self.prompt {
            prompt.user = read_text(path).or_usage()?;
        }
        if let Some(path) = &self.system {
            prompt.system = Some(read_text(path).or_usage()?);
        }
        Ok(prompt)
    }
}

/// Which model runs where.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Folder that holds config.json and the weights [default: $GLOBE_MODEL]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// What computes: auto takes a GPU if there is one, else a software GPU, else the CPU
    #[arg(long, default_value = "auto", value_parser = device_parser())]
    pub device: DeviceChoice,
    /// Hold weights in f32 and compute with the plain kernels, to check the fast ones
    #[arg(long)]
    pub reference: bool,
    #[command(flatten)]
    pub memory: MemoryArgs,
}

/// How tokens are chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Higher is more varied; 0 always takes the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.7)]
    temperature: f32,
    /// Choose among the fewest tokens whose probabilities reach this; 1 keeps all
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Choose among this many most likely tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value_t = 0)]
    token_top_k: usize,
    /// Divide the logits of tokens seen before by this; 1 is off
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Take this from a logit for each time the answer used the token; 0 is off
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Take this once from the logits of tokens that the answer used; 0 is off
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
}

impl SamplingArgs {
    fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.token_top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
        }
    }
}

/// How results of `locate` are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For reading
    Text,
    /// One array
    Json,
    /// One object per line, each written when its image is done
    Jsonl,
    /// One row per place
    Csv,
    /// One point per place (RFC 7946)
    Geojson,
}

/// Look places up in the gazetteer, by name
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  globe geocode \"Paris, France\" München
  globe geocode Springfield --format json

Exit codes: 0 every text was found, 2 wrong usage, 3 at least one was not found.
Places: GeoNames, CC BY 4.0.")]
pub struct GeocodeArgs {
    /// Such as `Paris`, `Paris, TX` or `France`
    #[arg(required = true, value_name = "TEXT")]
    pub texts: Vec<String>,
    /// How results are written
    #[arg(long, value_enum, default_value_t = GeocodeFormat::Text)]
    pub format: GeocodeFormat,
}

/// How results of `geocode` are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GeocodeFormat {
    /// For reading
    Text,
    /// One array
    Json,
}

/// Check a model folder and say what it holds and what memory it needs, without loading its weights
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  globe inspect MODEL_DIR
  globe inspect MODEL_DIR --json
  globe inspect MODEL_DIR --batch 16 --max-pixels 1000000 --memory-mb 8192

Exit codes: 0 the folder can be used, 2 it cannot; each problem is a line on standard error.")]
pub struct InspectArgs {
    /// Folder that holds config.json and the weights
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Answers at once that memory is planned for
    #[arg(long, value_name = "N", default_value = "1", value_parser = at_least_one)]
    pub batch: usize,
    /// Tokens per answer that memory is planned for
    #[arg(long, value_name = "N", default_value = "512", value_parser = at_least_one)]
    pub max_tokens: usize,
    /// Pixels of the photo that memory is planned for [default: the limit of the model]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_pixels: Option<usize>,
    /// What is to compute: the CPU path holds weights as f32
    #[arg(long, default_value = "auto", value_parser = device_parser())]
    pub device: DeviceChoice,
    /// Plan for the plain f32 kernels
    #[arg(long)]
    pub reference: bool,
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Pack a model into a small, verified folder that loads fast, natively and in a browser
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  globe convert --from HF_DIR --out DIR
  globe convert --from HF_DIR --adapter LORA_DIR --out DIR --bits 8
  globe convert --from model-q4_0.gguf --mmproj mmproj-f16.gguf --out DIR

Exit codes:
  0    the folder is complete
  1    it could not be written
  2    wrong usage, or the input cannot be used
  130  interrupted
A conversion that was stopped goes on where it was when the same command runs again.")]
pub struct ConvertArgs {
    /// Folder with a Hugging Face checkpoint, or a GGUF file of the language model
    #[arg(long, value_name = "HF_DIR|FILE")]
    pub from: PathBuf,
    /// GGUF file of the vision tower, for a GGUF file of the language model
    #[arg(long, value_name = "FILE")]
    pub mmproj: Option<PathBuf>,
    /// Folder to write; it must be absent, empty, or of the same conversion
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Bits per weight of the language model: 4, 8 or 16
    #[arg(long, value_name = "N", default_value = "4", value_parser = bits_parser(&["4", "8", "16"]))]
    pub bits: u32,
    /// Bits per weight of the vision tower: 8 or 16
    #[arg(long, value_name = "N", default_value = "8", value_parser = bits_parser(&["8", "16"]))]
    pub vision_bits: u32,
    /// Size of a file of weights in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub shard_mb: u64,
    /// Folder with a LoRA adapter to be merged into the weights: of PEFT, or a checkpoint of training
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// No progress, only errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// Merge a trained adapter into its base and write a Hugging Face folder, for transformers and others
///
/// Names and element types of the tensors stay those of the base, and its other files are copied.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  globe export --from HF_DIR --adapter LORA_DIR --out DIR
  globe export --from HF_DIR --adapter runs/grpo/checkpoints/step-00001000 --out DIR

Exit codes:
  0    the folder is complete
  1    it could not be written
  2    wrong usage, or base and adapter cannot be used or do not fit each other
  130  interrupted
The folder appears when it is complete. Until then, DIR.partial stands beside it."
)]
pub struct ExportArgs {
    /// Folder with the Hugging Face checkpoint that the adapter was trained for
    #[arg(long, value_name = "HF_DIR")]
    pub from: PathBuf,
    /// Folder with what was trained: a LoRA adapter of PEFT, or a checkpoint of `globe train`, also one
    /// that trained all weights
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Folder to write; it must be absent or empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Most MiB of tensors in a file of weights
    #[arg(long, value_name = "MIB", default_value_t = 4095, value_parser = clap::value_parser!(u64).range(1..=4095))]
    pub shard_mb: u64,
    /// No progress, only errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// Check every file of a packed folder against its digest
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  globe verify DIR

Exit codes: 0 every file is as it was written, 2 at least one is not; each is named.")]
pub struct VerifyArgs {
    /// Folder that `globe convert` wrote
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// No progress, only errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// List the adapters of this machine and the one that `--device auto` takes
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  globe devices
  globe devices --json")]
pub struct DevicesArgs {
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Print token ids, logits and greedy tokens, to compare with another implementation
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  globe logits --model MODEL_DIR --image photo.jpg --prompt \"Where is this?\" --json
  globe logits --model MODEL_DIR --prompt \"Name a city.\" --tokens 8

With --json, one object: input_ids, image_grid_thw ([t, h, w] for one image, a list of them for
several, null without), last_logits (at the last position of the prompt), greedy (the next tokens,
without stopping).")]
pub struct LogitsArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Image file; repeat the option for several
    #[arg(long = "image", value_name = "FILE")]
    pub images: Vec<PathBuf>,
    /// Text that follows the images
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
    /// System message; an empty one is passed as such [default: the chat template decides]
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Greedy tokens to generate
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub tokens: usize,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  globe completions bash > ~/.local/share/bash-completion/completions/globe
  globe completions fish > ~/.config/fish/completions/globe.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints a completion script.
pub fn completions(args: &CompletionsArgs) -> Result<Exit, Fail> {
    let mut script = Vec::new(); // the generator panics if its writer fails
    clap_complete::generate(args.shell, &mut Cli::command(), "globe", &mut script);
    print(&String::from_utf8(script)?).context("cannot write to standard output")?;
    Ok(Exit::Success)
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected at least 1".into()),
        Ok(n) => Ok(n),
        Err(_) => Err("expected a whole number".into()),
    }
}

fn at_least_three(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n >= 3 => Ok(n),
        _ => Err("expected a number of at least 3".into()),
    }
}

fn bits_parser(names: &'static [&'static str]) -> impl TypedValueParser<Value = u32> {
    PossibleValuesParser::new(names).try_map(|name| name.parse::<u32>())
}

/// Names of [`DeviceChoice`].
const DEVICES: [&str; 4] = ["auto", "gpu", "software", "cpu"];

fn device_parser() -> impl TypedValueParser<Value = DeviceChoice> {
    PossibleValuesParser::new(DEVICES).try_map(|name| name.parse::<DeviceChoice>())
}

fn precision_parser() -> impl TypedValueParser<Value = Precision> {
    let names = PossibleValuesParser::new(["country", "region", "city"]);
    names.try_map(|name| name.parse::<Precision>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    fn locate(line: &str) -> LocateArgs {
        let Command::Locate(args) = parse(line).unwrap() else { panic!("not locate: {line}") };
        args
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The help of the program and the library must not drift apart.
    #[test]
    fn defaults_are_those_of_the_engine() {
        let args = locate("globe locate a.jpg");
        let (got, expected) = (args.options().unwrap(), LocateOptions::default());
        assert_eq!(got.sampling, expected.sampling);
        assert_eq!(got.prompt, expected.prompt);
        assert_eq!(got.precision, expected.precision);
        assert_eq!(
            (got.samples, got.top_k, got.seed, got.max_tokens, got.max_pixels),
            (
                expected.samples,
                expected.top_k,
                expected.seed,
                expected.max_tokens,
                expected.max_pixels
            )
        );
        assert_eq!((args.format, args.model.device), (Format::Text, DeviceChoice::Auto));
    }

    #[test]
    fn options_reach_the_engine() {
        let args = locate(
            "globe locate a.jpg b.jpg --samples 3 --top-k 2 --temperature 0 --top-p 0.5 \
             --token-top-k 7 --repetition-penalty 1.5 --frequency-penalty -0.5 \
             --presence-penalty 0.25 --seed 9 --max-tokens 5 --max-pixels 100000 \
             --precision country --device cpu --format geojson",
        );
        let options = args.options().unwrap();
        let expected = Sampling {
            temperature: 0.0,
            top_k: 7,
            top_p: 0.5,
            repetition_penalty: 1.5,
            frequency_penalty: -0.5,
            presence_penalty: 0.25,
        };
        assert_eq!(options.sampling, expected);
        assert_eq!((options.samples, options.top_k, options.seed), (3, 2, 9));
        assert_eq!((options.max_tokens, options.max_pixels), (5, Some(100_000)));
        assert_eq!(options.precision, Precision::Country);
        assert_eq!((args.model.device, args.format), (DeviceChoice::Cpu, Format::Geojson));
        assert_eq!(args.images.len(), 2);
    }

    #[test]
    fn wrong_values_are_refused() {
        for line in [
            "globe locate",
            "globe locate a.jpg --samples 0",
            "globe locate a.jpg --top-k 0",
            "globe locate a.jpg --max-tokens 0",
            "globe locate a.jpg --device tpu",
            "globe locate a.jpg --precision street",
            "globe locate a.jpg --format xml",
            "globe geocode",
            "globe logits --image a.jpg",
            "globe inspect",
            "globe convert --from a",
            "globe convert --from a --out b --bits 5",
            "globe convert --from a --out b --vision-bits 4",
            "globe convert --from a --out b --shard-mb 0",
            "globe export --from a --out b",
            "globe export --from a --adapter b --out c --shard-mb 4096",
            "globe verify",
            "globe completions tcl",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), Exit::Usage as i32, "{line}");
        }
        assert!(locate("globe locate a.jpg --top-p 0").options().is_err());
        assert!(locate("globe locate a.jpg --temperature nan").options().is_err());
    }

    #[test]
    fn an_empty_system_message_differs_from_none() {
        let system = |line: &[&str]| match Cli::try_parse_from(line).unwrap().command {
            Command::Logits(args) => args.system,
            _ => panic!("not logits"),
        };
        assert_eq!(system(&["globe", "logits", "--prompt", "x"]), None);
        let empty = system(&["globe", "logits", "--prompt", "x", "--system", ""]);
        assert_eq!(empty, Some(String::new()));
    }
}
