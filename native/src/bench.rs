//! `globe bench`: how fast this adapter answers, beside how fast it could.

mod load;
mod on_host;
mod phase;
mod roof;
mod shape;
mod stats;
mod train;

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use globe_format::Folder;
use globe_model::{Batch, Cache, Config, ImageGrid, Model, Precision, WeightPlan, Workload};
use globe_ops::{
    Compute, SampleOptions, Tensor, dispatch_count, open_device, prefix_reads, read_f32,
    submit_count,
};
use serde::Serialize;

use self::load::LoadReport;
use self::phase::{Measured, Moved, Phase};
pub use self::roof::Roof;
pub use self::shape::Shape;
use self::stats::Stats;
use crate::args::{BenchArgs, BenchWhat};
use crate::console::print;
use crate::exit::{Exit, Fail, OrUsage};
use crate::input::open_folder;
use crate::intact::Unchecked;
use crate::memory::{PhaseMemory, Phases};
use crate::progress::Progress;

/// Replays whose host cost is compared with that of wgpu alone.
const HOST_COSTS: usize = 12;

/// Everything that was measured.
#[derive(Serialize)]
struct Report {
    globe: &'static str,
    adapter: String,
    kernels: String,
    /// None where nothing is recorded.
    replay: Option<&'static str>,
    model: String,
    bits: Option<u32>,
    repeats: usize,
    roof: Roof,
    #[serde(flatten)]
    load: LoadReport,
    weight_bytes_per_token: u64,
    image: Option<ImageReport>,
    prefill: PrefillReport,
    decode: Vec<DecodeReport>,
    train: Option<train::TrainReport>,
    device_bytes_in_use: u64,
    device_bytes_reserved: u64,
    host_peak_bytes: Option<u64>,
    /// Of each measurement; decoding once for every batch.
    memory: Vec<PhaseMemory>,
}

/// One image through the tower.
#[derive(Serialize)]
struct ImageReport {
    patches: usize,
    tokens: usize,
    /// Tokens are those that the language model reads.
    #[serde(flatten)]
    phase: Phase,
    #[serde(flatten)]
    moved: Moved,
}

/// One prompt.
#[derive(Serialize)]
struct PrefillReport {
    tokens: usize,
    #[serde(flatten)]
    phase: Phase,
    #[serde(flatten)]
    moved: Moved,
}

/// Answers to one prompt, some at once.
#[derive(Serialize)]
struct DecodeReport {
    batch: usize,
    tokens_per_answer: usize,
    seconds: Stats,
    /// Of all answers together.
    tokens_per_second: f64,
    milliseconds_per_step: f64,
    /// Least that must be moved: every weight once, keys and values of the prompt once and of each answer.
    bytes_per_step: u64,
    /// How often the kernels read those of the prompt.
    prefix_reads: usize,
    gigabytes_per_second: f64,
    share_of_copy_bandwidth: f64,
    dispatches_per_step: usize,
    /// None where tokens are chosen on the host, as are `host_microseconds_replay`, `host_microseconds_raw_loop` and
    /// `record_milliseconds`.
    submits_per_step: Option<usize>,
    host_microseconds_per_step: f64,
    /// Of a replay that begins while the device is idle; none where answers are shorter than 5 tokens.
    host_microseconds_replay: Option<f64>,
    /// The same launches through wgpu alone, measured in turn with the replays.
    host_microseconds_raw_loop: Option<f64>,
    /// Once per batch: the host's part of running a step and recording it.
    record_milliseconds: Option<f64>,
}

/// Measures and prints.
pub fn run(args: &BenchArgs) -> Result<Exit, Fail> {
    let report = pollster::block_on(measure(args))?;
    let document = match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => text(&report),
    };
    print(&document).context("cannot write to standard output")?;
    Ok(Exit::Success)
}

/// A model folder, after it was found to fit and to be intact: neither counts as loading.
async fn stored(
    folder: &Path,
    compute: &Compute,
    budget: Option<u64>,
    args: &BenchArgs,
) -> Result<(Folder, Config), Fail> {
    let folder = open_folder(Some(folder))?;
    let config = Config::load(&folder).await.or_usage()?;
    let weights = WeightPlan::of_folder(&folder, &config, args.reference).await.or_usage()?;
    check(&weights, &config, compute, budget, args).or_usage()?;
    if let Some(unchecked) = Unchecked::of(folder.path()) {
        unchecked.compare(&folder, args.json).await?;
    }
    Ok((folder, config))
}

async fn measure(args: &BenchArgs) -> Result<Report, Fail> {
    let compute = open_device(args.device).await.or_usage()?;
    if !compute.is_gpu() {
        let fail = anyhow::anyhow!(
            "the CPU path is the reference, not the product: bench measures adapters; \
             install a Vulkan driver or choose another --device"
        );
        return Err(fail).or_usage();
    }
    let budget = args.memory.on(&compute)?.bytes;
    let mut phases = Phases::begin();
    let roof = Roof::measure(&compute, args.repeats).await?;
    phases.end("roof", &compute);
    compute.free_unused()?; // or the model would settle in its pages
    let stored = match &args.model {
        Some(folder) => Some(stored(folder, &compute, budget, args).await?),
        None => None,
    };
    let progress = Progress::loading(args.json);
    let start = Instant::now();
    let mut on_progress = |done, all| progress.set(done, all);
    let (mut model, name, bits) = match stored {
        Some((folder, config)) => {
            let precision = if args.reference { Precision::Reference } else { Precision::Stored };
            let model = Model::load(&folder, config, &compute, precision, &mut on_progress).await;
            (model.or_usage()?, folder.path().display().to_string(), None)
        }
        None => {
            let config = args.shape.config();
            let (bits, vision_bits) = (args.bits, args.bits.max(8));
            let weights = WeightPlan::random(&config, bits, vision_bits).or_usage()?;
            check(&weights, &config, &compute, budget, args).or_usage()?;
            let model = Model::random(config, bits, vision_bits, &compute, &mut on_progress).await;
            (model.or_usage()?, format!("{} (random weights)", args.shape.name()), Some(bits))
        }
    };
    model.set_kv(args.memory.cache_bits.0).or_usage()?;
    wait(&compute).await?;
    let load = LoadReport::new(start.elapsed(), args.model.as_deref())?;
    progress.clear();
    phases.end("load", &compute);
    let mut image = None;
    if args.image > 0 {
        image = Some(encode(&model, &roof, args).await?);
        phases.end("encode", &compute);
    }
    let prefill = prefill(&model, &roof, args).await?;
    phases.end("prefill", &compute);
    let mut decode = Vec::new();
    for batch in batches(args) {
        decode.push(match model.can_batch() {
            true => answers(&model, *batch, &roof, &compute, args).await?,
            false => on_host::answer(&model, &roof, &compute, args).await?,
        });
        phases.end("decode", &compute);
    }
    let (now, memory) = (compute.memory(), phases.finish());
    let train = match args.what {
        Some(BenchWhat::Train) => Some(train::train(&mut model, &compute, &roof, args).await?),
        None => None,
    };
    Ok(Report {
        globe: env!("GLOBE_VERSION"),
        adapter: compute.name.clone(),
        kernels: if args.reference { "plain" } else { compute.variant().name() }.to_owned(),
        replay: (!args.reference).then(|| compute.replay().name()),
        model: name,
        bits,
        repeats: args.repeats,
        roof,
        load,
        weight_bytes_per_token: model.bytes_per_token(),
        image,
        prefill,
        decode,
        train,
        device_bytes_in_use: now.in_use,
        device_bytes_reserved: now.reserved,
        host_peak_bytes: memory.iter().filter_map(|phase| phase.host_peak_bytes).max(),
        memory,
    })
}

/// Answers at once of each measurement.
fn batches(args: &BenchArgs) -> &[usize] {
    if args.reference { &[1] } else { &args.batch }
}

/// Errors if what is to be measured does not fit.
fn check(
    weights: &WeightPlan,
    config: &Config,
    compute: &Compute,
    budget: Option<u64>,
    args: &BenchArgs,
) -> globe_model::Result<()> {
    let work = Workload {
        patches: grid(config, args.image).patches(),
        prompt: args.prompt,
        bucket: 1,
        answers: batches(args).iter().copied().max().unwrap_or(1),
        max_tokens: args.tokens,
        penalties: false,
        kv: args.memory.cache_bits.0,
    };
    let plan = weights.plan(config, &work);
    plan.check(budget.unwrap_or(u64::MAX))?;
    Ok(compute.check_binding(plan.largest_buffer)?)
}

/// Patches of a square image.
fn grid(config: &Config, side: usize) -> ImageGrid {
    let cfg = &config.vision;
    let patches = side.div_ceil(cfg.patch_size * cfg.spatial_merge_size) * cfg.spatial_merge_size;
    ImageGrid([1, patches, patches])
}

async fn encode(model: &Model, roof: &Roof, args: &BenchArgs) -> Result<ImageReport, Fail> {
    let cfg = &model.config().vision;
    let grid = grid(model.config(), args.image);
    let values = grid.patches() * cfg.patch_values();
    let mut measured = Measured::default();
    for i in 0..=args.repeats {
        // Other values each time, and bytes that are touched: nothing can be skipped.
        let pixels: Vec<f32> = (0..values).map(|p| ((p + i) % 255) as f32 / 127.0 - 1.0).collect();
        let before = dispatch_count();
        let start = Instant::now();
        let features = model.encode_images(pixels, &[grid]).or_usage()?;
        let host = start.elapsed().as_secs_f64();
        measured.dispatches = (dispatch_count() - before) as usize;
        let sum: f32 = read_f32(features).await?.iter().sum();
        let seconds = start.elapsed().as_secs_f64();
        sure(sum.is_finite(), "the tower gave no numbers")?;
        measured.note(i > 0, seconds, host); // the first compiles pipelines
    }
    let tokens = model.image_tokens(grid).or_usage()?;
    let (flops, bytes) = (phase::of_image(cfg, &grid), model.weights().vision);
    let (phase, moved) = measured.of(tokens, flops, bytes, roof);
    Ok(ImageReport { patches: grid.patches(), tokens, phase, moved })
}

/// Token ids that differ, from anywhere in the vocabulary but the image token.
fn prompt(model: &Model, n: usize, seed: usize) -> Vec<u32> {
    let config = model.config();
    let vocab = config.text.vocab_size;
    (0..n)
        .map(|i| ((i * 7919 + seed * 31) % vocab) as u32)
        .map(|id| if id == config.image_token_id { (id + 1) % vocab as u32 } else { id })
        .collect()
}

async fn prefill(model: &Model, roof: &Roof, args: &BenchArgs) -> Result<PrefillReport, Fail> {
    let mut cache = model.cache(args.prompt, 1, 1);
    let mut measured = Measured::default();
    for i in 0..=args.repeats {
        let ids = prompt(model, args.prompt, i);
        let before = dispatch_count();
        let start = Instant::now();
        let logits = model.prefill(&ids, None, &[], &mut cache).or_usage()?;
        let host = start.elapsed().as_secs_f64();
        measured.dispatches = (dispatch_count() - before) as usize;
        let sum: f32 = read_f32(logits).await?.iter().sum();
        let seconds = start.elapsed().as_secs_f64();
        sure(sum.is_finite(), "the model gave no numbers")?;
        measured.note(i > 0, seconds, host);
    }
    let (tokens, flops) = (args.prompt, phase::of_prompt(model.config(), args.prompt));
    let bytes = model.bytes_per_token() + (key_bytes(model) * tokens) as u64;
    let (phase, moved) = measured.of(tokens, flops, bytes, roof);
    Ok(PrefillReport { tokens, phase, moved })
}

async fn answers(
    model: &Model,
    rows: usize,
    roof: &Roof,
    compute: &Compute,
    args: &BenchArgs,
) -> Result<DecodeReport, Fail> {
    let mut cache = model.cache(args.prompt, args.tokens, rows);
    let ids = prompt(model, args.prompt, 0);
    let logits = model.prefill(&ids, None, &[], &mut cache).or_usage()?;
    let samples: Vec<u32> = (0..rows as u32).collect();
    let (mut times, mut host, mut launched) = (Vec::new(), Vec::new(), [0; 2]);
    let mut records = Vec::new();
    for i in 0..=args.repeats {
        let options =
            SampleOptions { temperature: 0.7, seed: i as u64, ..SampleOptions::default() };
        let mut batch = Batch::start(&cache, &logits, &samples, None, options, &[]).or_usage()?;
        let call = Instant::now();
        batch.step(model, &cache).or_usage()?; // records
        let recorded = call.elapsed().as_secs_f64();
        batch.read().await.or_usage()?;
        let steps = args.tokens - 2;
        let before = submit_count();
        let start = Instant::now();
        // A full queue makes a call wait for the device, so the quickest call is the host's part.
        let mut queued = f64::INFINITY;
        for _ in 0..steps {
            let call = Instant::now();
            batch.step(model, &cache).or_usage()?;
            queued = queued.min(call.elapsed().as_secs_f64());
        }
        let submits = (submit_count() - before) as usize;
        let drawn = batch.read().await.or_usage()?;
        let seconds = start.elapsed().as_secs_f64() / steps as f64;
        sure(drawn.steps == args.tokens, "not every token was drawn")?;
        launched = [batch.n_dispatches().unwrap_or(0), submits.div_ceil(steps)];
        if i > 0 {
            times.push(seconds);
            host.push(queued);
            records.push(recorded);
        }
    }
    let [replay, raw] = host_cost(model, &cache, &logits, &samples, compute).await?;
    let record_milliseconds = Some(Stats::new(records).median * 1e3);
    let [dispatches, submits] = launched;
    let stats = [times, host].map(Stats::new);
    let report = decode_report(model, rows, roof, compute, args, stats, dispatches);
    let micros = |times: Vec<f64>| (!times.is_empty()).then(|| Stats::new(times).median * 1e6);
    let (host_microseconds_replay, host_microseconds_raw_loop) = (micros(replay), micros(raw));
    Ok(DecodeReport {
        submits_per_step: Some(submits),
        host_microseconds_replay,
        host_microseconds_raw_loop,
        record_milliseconds,
        ..report
    })
}

/// Host seconds of replays and of the same launches through wgpu alone, one after the other, each
/// begun while the device is idle.
async fn host_cost(
    model: &Model,
    cache: &Cache,
    logits: &Tensor<2>,
    samples: &[u32],
    compute: &Compute,
) -> Result<[Vec<f64>; 2], Fail> {
    let options = SampleOptions::default();
    let mut batch = Batch::start(cache, logits, samples, None, options, &[]).or_usage()?;
    batch.step(model, cache).or_usage()?; // records
    let mut seconds = [Vec::new(), Vec::new()];
    let room = (cache.capacity() - cache.len()).saturating_sub(3) / 2;
    for _ in 0..room.min(HOST_COSTS) {
        wait(compute).await?;
        let call = Instant::now();
        batch.step(model, cache).or_usage()?;
        seconds[0].push(call.elapsed().as_secs_f64());
        let Some(raw_loop) = batch.raw_loop() else { break };
        wait(compute).await?;
        let call = Instant::now();
        raw_loop.run(1);
        seconds[1].push(call.elapsed().as_secs_f64());
    }
    wait(compute).await?;
    Ok(seconds)
}

/// Of keys and values of a token, all layers.
fn key_bytes(model: &Model) -> usize {
    let cfg = &model.config().text;
    let words = model.kv().words(cfg.head_dim());
    2 * cfg.num_hidden_layers * cfg.n_kv_heads() * words * size_of::<f32>()
}

fn decode_report(
    model: &Model,
    rows: usize,
    roof: &Roof,
    compute: &Compute,
    args: &BenchArgs,
    [seconds, host]: [Stats; 2],
    dispatches: usize,
) -> DecodeReport {
    let cfg = &model.config().text;
    let group = cfg.num_attention_heads / cfg.n_kv_heads();
    let keys = args.prompt + args.tokens / 2 * rows;
    let bytes = model.bytes_per_token() + (key_bytes(model) * keys) as u64;
    let gigabytes_per_second = bytes as f64 / seconds.median / 1e9;
    DecodeReport {
        batch: rows,
        tokens_per_answer: args.tokens,
        tokens_per_second: rows as f64 / seconds.median,
        milliseconds_per_step: seconds.median * 1e3,
        bytes_per_step: bytes,
        prefix_reads: prefix_reads(compute.variant(), rows, group),
        gigabytes_per_second,
        share_of_copy_bandwidth: gigabytes_per_second / roof.copy_gigabytes_per_second,
        dispatches_per_step: dispatches,
        submits_per_step: None,
        host_microseconds_per_step: host.median * 1e6,
        host_microseconds_replay: None,
        host_microseconds_raw_loop: None,
        record_milliseconds: None,
        seconds,
    }
}

fn text(report: &Report) -> String {
    let roof = &report.roof;
    let mut text = format!(
        "{} on {} ({} kernels{}), median of {}\n\
         roof     {:8.2} GB/s copied, {:.1} GFLOP/s multiplied and added\n\
         load     {}, {:.1} MB of weights read per token\n",
        report.model,
        report.adapter,
        report.kernels,
        report.replay.map(|replay| format!(", replay by {replay}")).unwrap_or_default(),
        report.repeats,
        roof.copy_gigabytes_per_second,
        roof.gigaflops_per_second,
        report.load.text(),
        report.weight_bytes_per_token as f64 / 1e6,
    );
    if let Some(image) = &report.image {
        text += &format!(
            "image    {:8.1} tokens/s ({} patches to {} tokens in {}, {})\n",
            image.phase.tokens_per_second,
            image.patches,
            image.tokens,
            image.phase.text(),
            image.moved.text(),
        );
    }
    let prefill = &report.prefill;
    text += &format!(
        "prefill  {:8.1} tokens/s ({} tokens in {}, {})\n",
        prefill.phase.tokens_per_second,
        prefill.tokens,
        prefill.phase.text(),
        prefill.moved.text(),
    );
    for decode in &report.decode {
        text += &format!(
            "decode   {:8.2} tokens/s, {} at once ({:.2} ms a step ± {:.2}, {:.2} GB/s, {:.0} % of the copy roof, \
             {} dispatches, host {:.0} us{})\n",
            decode.tokens_per_second,
            decode.batch,
            decode.milliseconds_per_step,
            decode.seconds.spread * 1e3,
            decode.gigabytes_per_second,
            decode.share_of_copy_bandwidth * 100.0,
            decode.dispatches_per_step,
            decode.host_microseconds_per_step,
            of_replays(decode).unwrap_or_default(),
        );
    }
    if let Some(train) = &report.train {
        text += &train.text();
    }
    let mib = |bytes: u64| bytes as f64 / (1u64 << 20) as f64;
    text += &format!(
        "memory   {:8.0} MiB in use on the device, {:.0} reserved",
        mib(report.device_bytes_in_use),
        mib(report.device_bytes_reserved)
    );
    if let Some(peak) = report.host_peak_bytes {
        text += &format!("; host peak {:.0} MiB", mib(peak));
    }
    text += "\n";
    for PhaseMemory { phase, device_bytes_in_use, device_bytes_reserved, host_peak_bytes } in
        &report.memory
    {
        let host =
            host_peak_bytes.map_or_else(String::new, |peak| format!("; host {:.0}", mib(peak)));
        text += &format!(
            "  {phase:7}{:8.0} MiB at its end, {:.0} at most{host}\n",
            mib(*device_bytes_in_use),
            mib(*device_bytes_reserved),
        );
    }
    text
}

/// A replay on an idle device beside the same launches through wgpu alone.
fn of_replays(decode: &DecodeReport) -> Option<String> {
    let (submits, recorded) = (decode.submits_per_step?, decode.record_milliseconds?);
    let idle = match (decode.host_microseconds_replay, decode.host_microseconds_raw_loop) {
        (Some(replay), Some(raw)) => {
            format!(" (while idle {replay:.0}, {:.2} times wgpu alone)", replay / raw)
        }
        _ => String::new(),
    };
    Some(format!("{idle}, {submits} submit, recorded in {recorded:.0} ms"))
}

/// Fails if a measurement cannot be right.
fn sure(ok: bool, what: &'static str) -> Result<(), Fail> {
    if ok { Ok(()) } else { Err(anyhow::anyhow!(what).into()) }
}

/// Waits until everything queued so far is done.
async fn wait(compute: &Compute) -> Result<(), Fail> {
    let marker = globe_ops::zeros::<1>([1], &compute.device);
    read_f32(marker).await?;
    Ok(())
}
