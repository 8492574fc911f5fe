//! One training step on random weights: log-probabilities, gradients, optimiser.

use std::time::Instant;

use globe_model::{AnswerGroup, LoraShape, Model, Qwen2_5Vl, TrainingPlan, TrainingWorkload};
use globe_ops::{AdamStep, Compute, MemoryWatch, adamw, read_f32, zeros};
use globe_policy::fresh;
use globe_train::assemble::adapter_config;
use globe_train::config::LoraSection;
use serde::Serialize;

use super::phase::Phase;
use super::roof::Roof;
use super::stats::Stats;
use super::{prompt, sure, wait};
use crate::args::BenchArgs;
use crate::exit::{Fail, OrUsage};

/// A step over one prompt with several answers.
#[derive(Serialize)]
pub struct TrainReport {
    answers: usize,
    tokens: usize,
    adapter_parameters: usize,
    /// Log-probabilities, keeping what the backward pass needs.
    forward: Phase,
    /// Gradients, each layer computed again.
    backward: Phase,
    /// AdamW over the adapter.
    optimiser: Optimiser,
    backward_to_forward: f64,
    /// The most bytes that tensors held, weights included.
    device_peak_bytes: u64,
    /// What `globe train --dry-run` would say of such a pass.
    planned_bytes: u64,
}

/// All parameters moved by their gradients.
#[derive(Serialize)]
struct Optimiser {
    seconds: Stats,
    gigabytes_per_second: f64,
    share_of_copy_bandwidth: f64,
}

/// Measures with as many answers as the largest `--batch`.
pub async fn train(
    model: &mut Model,
    compute: &Compute,
    roof: &Roof,
    args: &BenchArgs,
) -> Result<TrainReport, Fail> {
    let lora = LoraSection::default();
    let config = adapter_config(&lora, "");
    let modules = fresh(model, &config, &lora.targets, 0);
    let shape = LoraShape { rank: lora.rank, scale: config.scaling() as f32 };
    let mut set = model.lora_set(shape, &modules, compute).or_usage()?;
    model.swap_lora(&mut set).or_usage()?;

    let n_answers = args.batch.iter().copied().max().unwrap_or(1);
    let ids = prompt(model, args.prompt, 0);
    let answers: Vec<Vec<u32>> = (1..=n_answers).map(|i| prompt(model, args.tokens, i)).collect();
    let answers: Vec<&[u32]> = answers.iter().map(Vec::as_slice).collect();
    let group = AnswerGroup { prompt: &ids, images: None, grids: &[], answers: &answers };
    let dlogp: Vec<Vec<f32>> = answers.iter().map(|a| vec![1e-3; a.len()]).collect();

    let shapes = model.lora_parameters().shapes();
    let means = || shapes.iter().map(|shape| zeros(*shape, &compute.device)).collect::<Vec<_>>();
    let (mean, mean_sq) = (means(), means());
    let (mut forward, mut backward, mut optimiser) = (Vec::new(), Vec::new(), Vec::new());
    let mut tokens = 0;
    let mut device_peak_bytes = 0;
    for i in 0..=args.repeats {
        // Watching asks the device at every kernel, so only the run that does not count is watched.
        let watch = (i == 0).then(MemoryWatch::begin);
        let start = Instant::now();
        let pass = model.forward(std::slice::from_ref(&group), 1.0, true).or_usage()?;
        let logps = pass.logps().await.or_usage()?;
        sure(logps.iter().flat_map(|l| &l.logp).all(|x| x.is_finite()), "no log-probabilities")?;
        tokens = pass.tokens();
        let forward_s = start.elapsed().as_secs_f64();

        let start = Instant::now();
        let mut sum = model.lora_gradients();
        model.backward(pass, &dlogp, &mut sum).or_usage()?;
        let gradients = sum.into_tensors();
        wait(compute).await?;
        let backward_s = start.elapsed().as_secs_f64();

        let start = Instant::now();
        step(model, gradients, &mean, &mean_sq)?;
        wait(compute).await?;
        device_peak_bytes = watch.map_or(device_peak_bytes, |watch| watch.peak());
        if i > 0 {
            forward.push(forward_s);
            backward.push(backward_s);
            optimiser.push(start.elapsed().as_secs_f64());
        }
    }
    let some = read_f32(mean[0].clone()).await?;
    sure(some.iter().all(|x| x.is_finite()), "the gradients are no numbers")?;
    let (forward, backward) = (Stats::new(forward), Stats::new(backward));
    let config = model.config();
    let adapter = Qwen2_5Vl::adapter_plan(config, lora.rank, |_| true);
    let work = TrainingWorkload {
        sequences: 1,
        tokens,
        targets: answers.iter().map(|a| a.len()).sum(),
        adapter_width: adapter.width,
    };
    let pass = TrainingPlan::new(config, &work).size_bytes();
    // Values, those multiplied beforehand, gradients and the optimiser's two means; no masks here.
    let numbers = 4 * adapter.values + adapter.scaled;
    let planned_bytes = model.weights().total() + 4 * numbers as u64 + pass;
    let text = &config.text;
    let head = text.vocab_size * text.hidden_size;
    let body: usize = model.lora_modules().iter().map(|(_, [out, inputs])| out * inputs).sum();
    let targets: usize = answers.iter().map(|a| a.len()).sum();
    // A product forwards; the same again and its gradient backwards.
    let once = 2.0 * (body as f64 * tokens as f64 + head as f64 * targets as f64);
    let phase = |seconds: Stats, flops: f64| Phase::new(seconds, tokens, flops, roof);
    // A parameter and its two means read and written, its gradient read.
    let optimiser = Stats::new(optimiser);
    let gigabytes_per_second = (7 * 4 * adapter.values) as f64 / optimiser.median / 1e9;
    Ok(TrainReport {
        answers: n_answers,
        tokens,
        adapter_parameters: modules.values().map(|m| m.a.len() + m.b.len()).sum(),
        backward_to_forward: backward.median / forward.median,
        forward: phase(forward, once),
        backward: phase(backward, 2.0 * once),
        optimiser: Optimiser {
            gigabytes_per_second,
            share_of_copy_bandwidth: gigabytes_per_second / roof.copy_gigabytes_per_second,
            seconds: optimiser,
        },
        device_peak_bytes,
        planned_bytes,
    })
}

/// AdamW over all parameters.
fn step(
    model: &mut Model,
    gradients: Vec<globe_ops::Tensor<2>>,
    mean: &[globe_ops::Tensor<2>],
    mean_sq: &[globe_ops::Tensor<2>],
) -> Result<(), Fail> {
    let step = AdamStep {
        lr: 1e-6,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.0,
        correction1: 0.1,
        correction2: 0.05,
        gradient_scale: 1.0,
    };
    let mut parameters = model.lora_parameters();
    let update = |i: usize, parameter: globe_ops::Tensor<2>| {
        let [rows, cols] = parameter.dims();
        let flat = |t: globe_ops::Tensor<2>| t.reshape([rows * cols]);
        let (m, v) = (flat(mean[i].clone()), flat(mean_sq[i].clone()));
        let (parameter, ..) = adamw(flat(parameter), flat(gradients[i].clone()), m, v, &step)?;
        Ok::<_, globe_ops::Error>(parameter.reshape([rows, cols]))
    };
    Ok(parameters.update(update)?)
}

impl TrainReport {
    /// Lines for people.
    pub fn text(&self) -> String {
        let line = |name: &str, phase: &Phase| {
            format!("{name} {:8.1} tokens/s ({})\n", phase.tokens_per_second, phase.text())
        };
        format!(
            "train    {} answers behind one prompt, {} tokens, adapter of {:.2} million parameters\n\
             {}{}\
             adamw    {:8.2} GB/s ({:.2} ms ± {:.2}, {:.0} % of the copy roof)\n\
             backward {:8.2} times forward\n\
             training {:8.1} MiB at the peak, {:.1} planned ({:+.1} %)\n",
            self.answers,
            self.tokens,
            self.adapter_parameters as f64 / 1e6,
            line("forward ", &self.forward),
            line("backward", &self.backward),
            self.optimiser.gigabytes_per_second,
            self.optimiser.seconds.median * 1e3,
            self.optimiser.seconds.spread * 1e3,
            self.optimiser.share_of_copy_bandwidth * 100.0,
            self.backward_to_forward,
            mib(self.device_peak_bytes),
            mib(self.planned_bytes),
            (self.device_peak_bytes as f64 / self.planned_bytes as f64 - 1.0) * 100.0,
        )
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
