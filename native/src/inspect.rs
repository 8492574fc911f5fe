//! `globe inspect`.

use anyhow::{Context, anyhow};
use globe_engine::{Demand, plan};
use globe_format::Folder;

use globe_model::{MemoryPlan, Model, Summary};
use globe_ops::KvFormat;
use globe_text::{ChatTemplate, Prompt, StopTokens, TemplateSource, Tokenizer};
use serde::Serialize;

use crate::args::InspectArgs;
use crate::console::{print, say};
use crate::exit::{Exit, Fail, OrUsage, chain};
use crate::memory::Budget;

/// Tokens for which the cache is stated.
const CACHE_TOKENS: u64 = 1000;

/// What a folder holds, under documented names.
#[derive(Serialize)]
struct Report {
    architecture: &'static str,
    n_parameters: u64,
    n_tensors: usize,
    stored_bytes: u64,
    dtypes: Vec<Stored>,
    device_weight_bytes: u64,
    cache_bytes_per_1000_tokens: u64,
    memory: Memory,
    text: TextSizes,
    vision: VisionSizes,
    tie_word_embeddings: bool,
    chat_template: &'static str,
    prompt_sha256: String,
}

/// Memory needed for what `--batch`, `--max-tokens` and `--max-pixels` name, and what there is.
#[derive(Serialize)]
struct Memory {
    batch: usize,
    max_tokens: usize,
    device_bytes: u64,
    #[serde(flatten)]
    plan: MemoryPlan,
    budget_bytes: Option<u64>,
    budget_source: &'static str,
    fits: Option<bool>,
}

/// What one number format takes.
#[derive(Serialize)]
struct Stored {
    dtype: &'static str,
    n_tensors: usize,
    n_parameters: u64,
    size_bytes: u64,
}

/// Sizes of the language model, named as in config.json.
#[derive(Serialize)]
struct TextSizes {
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rope_theta: f64,
}

/// Sizes of the vision tower, named as in config.json.
#[derive(Serialize)]
struct VisionSizes {
    depth: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_heads: usize,
    patch_size: usize,
    spatial_merge_size: usize,
    window_size: usize,
}

/// Checks a folder and prints what it holds.
pub fn run(args: &InspectArgs) -> Result<Exit, Fail> {
    let folder = Folder::open(&args.folder).or_usage()?;
    let (budget, is_cpu) = pollster::block_on(args.memory.on_choice(args.device))?;
    let dense = args.reference || is_cpu;
    let (report, problems) = pollster::block_on(inspect(&folder, args, budget, dense));
    for problem in &problems {
        say(format_args!("error: {}", chain(problem)));
    }
    let Some(report) = report.filter(|_| problems.is_empty()) else {
        return Ok(Exit::Usage);
    };
    let document = match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => text(&report),
    };
    print(&document).context("cannot write to standard output")?;
    Ok(Exit::Success)
}

/// All problems at once: each costs its reader a download.
async fn inspect(
    folder: &Folder,
    args: &InspectArgs,
    budget: Budget,
    dense: bool,
) -> (Option<Report>, Vec<anyhow::Error>) {
    let mut problems = Vec::new();
    let summary = keep(Model::inspect(folder).await, &mut problems);
    let template = keep(ChatTemplate::load(folder).await, &mut problems);
    if let Some(tokenizer) = keep(Tokenizer::load(folder).await, &mut problems) {
        keep(StopTokens::load(folder, &tokenizer).await, &mut problems);
        if let Some(summary) = &summary {
            keep(tokenizer.check_vocab(summary.config.text.vocab_size), &mut problems);
        }
    }
    let Some((summary, template)) = summary.zip(template).filter(|_| problems.is_empty()) else {
        return (None, problems);
    };
    let in_quads = summary.config.text.head_dim().is_multiple_of(4);
    if (dense || !in_quads) && args.memory.cache_bits.0 == KvFormat::F16 {
        problems.push(anyhow!(
            "--cache-bits 16 needs the fast kernels and heads of a multiple of 4; leave the cache at 32 bits"
        ));
        return (None, problems);
    }
    let (answers, max_tokens, max_pixels) = (args.batch, args.max_tokens, args.max_pixels);
    let kv = args.memory.cache_bits.0;
    let demand = Demand { answers, max_tokens, max_pixels, kv, ..Demand::default() };
    let plan = keep(plan(folder, dense, &demand).await, &mut problems);
    let memory = plan.map(|plan| memory(plan, &demand, budget));
    (memory.map(|memory| report(&summary, template.source(), kv, memory)), problems)
}

fn memory(plan: MemoryPlan, demand: &Demand, budget: Budget) -> Memory {
    let device_bytes = plan.device_bytes();
    Memory {
        batch: demand.answers,
        max_tokens: demand.max_tokens,
        device_bytes,
        plan,
        budget_bytes: budget.bytes,
        budget_source: budget.source,
        fits: budget.bytes.map(|bytes| device_bytes <= bytes),
    }
}

fn keep<T, E: Into<anyhow::Error>>(
    result: Result<T, E>,
    problems: &mut Vec<anyhow::Error>,
) -> Option<T> {
    result.map_err(|error| problems.push(error.into())).ok()
}

fn report(summary: &Summary, template: TemplateSource, kv: KvFormat, memory: Memory) -> Report {
    let (text, vision) = (&summary.config.text, &summary.config.vision);
    let dtypes = summary.formats.iter().map(|stored| Stored {
        dtype: stored.format,
        n_tensors: stored.n_tensors,
        n_parameters: stored.n_elements,
        size_bytes: stored.size_bytes,
    });
    Report {
        architecture: summary.architecture,
        n_parameters: summary.n_parameters,
        n_tensors: summary.n_tensors,
        stored_bytes: summary.stored_bytes,
        dtypes: dtypes.collect(),
        device_weight_bytes: memory.plan.weights,
        cache_bytes_per_1000_tokens: CACHE_TOKENS * summary.cache_bytes_per_token(kv),
        memory,
        text: TextSizes {
            num_hidden_layers: text.num_hidden_layers,
            hidden_size: text.hidden_size,
            intermediate_size: text.intermediate_size,
            num_attention_heads: text.num_attention_heads,
            num_key_value_heads: text.n_kv_heads(),
            head_dim: text.head_dim(),
            vocab_size: text.vocab_size,
            max_position_embeddings: text.max_position_embeddings,
            rope_theta: text.rope_theta(),
        },
        vision: VisionSizes {
            depth: vision.depth,
            hidden_size: vision.hidden_size,
            intermediate_size: vision.intermediate_size,
            num_heads: vision.num_heads,
            patch_size: vision.patch_size,
            spatial_merge_size: vision.spatial_merge_size,
            window_size: vision.window_size,
        },
        tie_word_embeddings: summary.config.tie_word_embeddings,
        chat_template: template.name(),
        prompt_sha256: Prompt::reason().sha256(),
    }
}

fn text(report: &Report) -> String {
    let Report { text: t, vision: v, .. } = report;
    let tied = if report.tie_word_embeddings { "tied" } else { "separate" };
    let stored = report.dtypes.iter().map(|stored| {
        format!("{} as {} in {} tensors", bytes(stored.size_bytes), stored.dtype, stored.n_tensors)
    });
    let rows = [
        ("architecture", report.architecture.to_owned()),
        ("parameters", count(report.n_parameters)),
        ("stored", stored.collect::<Vec<_>>().join(", ")),
        ("on the device", bytes(report.device_weight_bytes) + " of weights"),
        ("cache", bytes(report.cache_bytes_per_1000_tokens) + " per 1000 tokens"),
        ("needs", needs(&report.memory)),
        ("budget", budget(&report.memory)),
        (
            "language model",
            format!(
                "{} layers, hidden {}, feed-forward {}, {} heads of {} ({} for keys and values)",
                t.num_hidden_layers,
                t.hidden_size,
                t.intermediate_size,
                t.num_attention_heads,
                t.head_dim,
                t.num_key_value_heads,
            ),
        ),
        ("vocabulary", format!("{}, {tied} head", t.vocab_size)),
        ("context", format!("{} tokens", t.max_position_embeddings)),
        (
            "vision tower",
            format!(
                "{} blocks, hidden {}, {} heads, patches of {} pixels merged {} by {}, windows of {} pixels",
                v.depth,
                v.hidden_size,
                v.num_heads,
                v.patch_size,
                v.spatial_merge_size,
                v.spatial_merge_size,
                v.window_size,
            ),
        ),
        ("chat template", report.chat_template.to_owned()),
        ("prompt sha256", report.prompt_sha256.clone()),
    ];
    rows.iter().map(|(name, value)| format!("{name:14}  {value}\n")).collect()
}

/// What must be held at once, by part.
fn needs(memory: &Memory) -> String {
    let Memory { batch, max_tokens, device_bytes, plan, .. } = memory;
    let answers =
        if *batch == 1 { "one answer".into() } else { format!("{batch} answers at once") };
    format!(
        "{} on the device for {answers} of {max_tokens} tokens to the largest photo ({plan}), {} on the host to load",
        bytes(*device_bytes),
        bytes(plan.host_load),
    )
}

fn budget(memory: &Memory) -> String {
    let fits = match memory.fits {
        Some(true) => "enough",
        Some(false) => "too little",
        None => return format!("{}; --memory-mb sets it", memory.budget_source),
    };
    format!("{}, {fits} ({})", bytes(memory.budget_bytes.unwrap_or(0)), memory.budget_source)
}

/// A size for reading.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, 1024.0, &["bytes", "KiB", "MiB", "GiB", "TiB"])
}

fn count(n: u64) -> String {
    scaled(n as f64, 1000.0, &["", "thousand", "million", "billion"]).trim_end().to_owned()
}

fn scaled(mut n: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next();
    let mut decimals = 0;
    while n >= step {
        let Some(next) = units.next() else { break };
        (n, unit, decimals) = (n / step, Some(next), 2);
    }
    format!("{n:.decimals$} {}", unit.unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(16 << 30), "16.00 GiB");
        assert_eq!(count(999), "999");
        assert_eq!(count(8_292_166_656), "8.29 billion");
    }
}
