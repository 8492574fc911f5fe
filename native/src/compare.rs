//! `globe compare`.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use globe_engine::{Cancel, CompareOptions, Comparison, Demand, LoadOptions, compare};
use globe_model::Precision;
use globe_ops::{KvFormat, open_device};
use serde::Serialize;

use crate::args::CompareArgs;
use crate::console::{print, printable};
use crate::exit::{Exit, Fail, OrUsage};
use crate::input::{largest_photo, load_onto, open_folder, read_photo};
use crate::progress::Progress;

/// Endings of the files that are taken from a folder.
const ENDINGS: [&str; 5] = ["jpg", "jpeg", "png", "webp", "gif"];

/// All images and their mean.
#[derive(Serialize)]
struct Report {
    a: String,
    b: String,
    tokens: usize,
    top1_agreement: f64,
    mean_kl: f64,
    lowest_layer_cosine: f64,
    images: Vec<Image>,
}

/// One image.
#[derive(Serialize)]
struct Image {
    image: String,
    #[serde(flatten)]
    comparison: Comparison,
}

/// Compares two models over a folder of images.
pub fn run(args: &CompareArgs) -> Result<Exit, Fail> {
    let images = images(&args.images).or_usage()?;
    let report = pollster::block_on(measure(args, &images))?;
    let document = match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => text(&report),
    };
    print(&document).context("cannot write to standard output")?;
    Ok(Exit::Success)
}

/// Image files of a folder, by name.
fn images(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder);
    let entries = entries.with_context(|| format!("cannot read {}", folder.display()))?;
    let mut images = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
            images.push(path);
        }
    }
    images.sort();
    match images.is_empty() {
        true => Err(anyhow!("{} holds no {} files", folder.display(), ENDINGS.join(", "))),
        false => Ok(images),
    }
}

async fn measure(args: &CompareArgs, images: &[PathBuf]) -> Result<Report, Fail> {
    let compute = open_device(args.device).await.or_usage()?;
    let (max_tokens, max_pixels) = (args.tokens, args.max_pixels);
    let wording = args.prompt.read()?;
    let options = CompareOptions { prompt: wording.clone(), max_tokens, max_pixels };
    let budget = args.memory.on(&compute)?.bytes;
    let load = async |folder: &Path, reference, taken: u64, kv| {
        let precision = if reference { Precision::Reference } else { Precision::Stored };
        let photo = largest_photo(images);
        let budget = budget.map(|bytes| bytes.saturating_sub(taken));
        let prompt = wording.clone();
        let demand = Demand { prompt, photo, max_pixels, max_tokens, kv, ..Demand::default() };
        let options = LoadOptions { precision, budget, demand };
        load_onto(&open_folder(Some(folder))?, compute.clone(), &options, args.json).await
    };
    let a = load(&args.a, args.reference, 0, KvFormat::F32).await?;
    // The second model has what the first leaves, and the cache that was asked for.
    let (taken, kv) = (a.model().weights().total(), args.memory.cache_bits.0);
    let b = load(&args.b, false, taken, kv).await?;
    let progress = Progress::images(images.len(), args.json);
    let mut compared = Vec::with_capacity(images.len());
    for path in images {
        let image = path.display().to_string();
        let photo = read_photo(path).with_context(|| image.clone()).or_usage()?;
        let comparison = compare(&a, &b, &photo, &options, &Cancel::default()).await.or_usage()?;
        compared.push(Image { image, comparison });
        progress.advance();
    }
    progress.clear();
    Ok(report(args, compared))
}

fn report(args: &CompareArgs, images: Vec<Image>) -> Report {
    let tokens: usize = images.iter().map(|i| i.comparison.tokens).sum();
    let mean = |value: fn(&Comparison) -> f64| {
        let all = images.iter().map(|i| value(&i.comparison) * i.comparison.tokens as f64);
        all.sum::<f64>() / tokens.max(1) as f64
    };
    let cosines = images.iter().flat_map(|i| &i.comparison.layer_cosine);
    Report {
        a: args.a.display().to_string(),
        b: args.b.display().to_string(),
        tokens,
        top1_agreement: mean(|c| c.top1_agreement),
        mean_kl: mean(|c| c.mean_kl),
        lowest_layer_cosine: cosines.copied().fold(1.0, f64::min),
        images,
    }
}

fn text(report: &Report) -> String {
    let mut text = format!("{} against {}\n", printable(&report.b), printable(&report.a));
    let line = |name: &str, tokens: usize, top1: f64, kl: f64, cosine: f64| {
        format!(
            "{:6.2} % same top token, KL {kl:.5}, lowest layer cosine {cosine:.5}, {tokens} tokens  {name}\n",
            top1 * 100.0
        )
    };
    for Image { image, comparison: c } in &report.images {
        let cosine = c.layer_cosine.iter().copied().fold(1.0, f64::min);
        text += &line(&printable(image), c.tokens, c.top1_agreement, c.mean_kl, cosine);
    }
    let Report { tokens, top1_agreement, mean_kl, lowest_layer_cosine, .. } = report;
    text + &line("all images", *tokens, *top1_agreement, *mean_kl, *lowest_layer_cosine)
}
