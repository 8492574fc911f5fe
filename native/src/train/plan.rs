//! `globe train --dry-run`: what a run does, takes and lasts, from `config.json` alone.

use globe_format::packed::{Class, TensorSpec};
use globe_format::{BLOCK, Folder};
use globe_model::{
    AdapterPlan, Config as ModelConfig, Error, Qwen2_5Vl, TrainingPlan, TrainingWorkload,
    VisionConfig, WeightPlan, Workload,
};
use globe_ops::ByteMeans;
use globe_train::assemble::stream;
use globe_train::config::{Config, Weights};
use globe_train::data::Part;
use globe_train::optimiser::StateBits;

use super::{Method, parts};
use crate::bench::Roof;
use crate::console::print;
use crate::exit::{Exit, Fail, OrUsage};
use crate::inspect::bytes;

/// Tokens of the question besides those of the photo.
const QUESTION_TOKENS: usize = 256;
/// Measurements of each roof.
const REPEATS: usize = 3;

/// Sizes of a step.
pub struct Plan {
    prompt: usize,
    /// Tokens of one group in training: the prompt once and all its answers.
    group: usize,
    parameters: usize,
    /// Values that are trained: those of the adapter, or all weights.
    trained: usize,
    /// Of an adapter: its numbers on the device, those included that fill whole blocks.
    adapter: AdapterPlan,
    weights: u64,
    /// The copy before training that the loss compares with.
    reference: u64,
    /// The tower at work or, in sampling, cache and the prompt or all answers at work.
    sampling: u64,
    pass: TrainingPlan,
    /// What the tower keeps in training.
    tower: u64,
}

/// Prints the plan.
pub fn run(method: Method, config: &Config) -> Result<Exit, Fail> {
    let folder = parts::model_folder(config)?;
    let model = pollster::block_on(ModelConfig::load(&folder)).or_usage()?;
    let compute = parts::open_device(config)?;
    let plan = Plan::new(method, config, &model, &folder).or_usage()?;
    let rows = match stream(config, Part::Train) {
        Ok(data) => format!("{} rows in {}", data.data().len(), config.data.path),
        Err(error) => format!("NOT READY: {error}"),
    };
    let mut text = format!(
        "model    {} ({:.2} billion parameters in the language model), {:?} on {}\n\
         data     {rows}\n",
        config.model.path,
        plan.parameters as f64 / 1e9,
        config.model.weights,
        compute.name
    );
    text += &plan.describe(method, config);
    if compute.is_gpu() {
        let roof = pollster::block_on(Roof::measure(&compute, REPEATS))?;
        text += &plan.time(method, config, &roof);
    }
    print(&text)?;
    Ok(Exit::Success)
}

impl Plan {
    /// Sizes for a model with this configuration. The headers of `folder` say how its copy is stored.
    ///
    /// # Errors
    /// If they are damaged.
    pub fn new(
        method: Method,
        config: &Config,
        model: &ModelConfig,
        folder: &Folder,
    ) -> anyhow::Result<Self> {
        let rollout = &config.rollout;
        let merged = model.vision.patch_size * model.vision.spatial_merge_size;
        let photo = config.model.max_pixels as usize / (merged * merged);
        let prompt = photo + QUESTION_TOKENS;
        let answers = match method {
            Method::Grpo => config.training.micro_batch.min(rollout.group_size),
            Method::Sft => 1,
            Method::Reward => 2,
        };
        let group = prompt + answers * rollout.max_tokens;
        let specs = Qwen2_5Vl::packed_specs(model);
        let is_text = |name: &str| !name.starts_with("visual.");
        let parameters = specs.iter().filter(|s| is_text(&s.name)).map(|s| s.rows * s.cols).sum();
        let is_full = config.model.weights == Weights::Full;
        let reference = match is_full && parts::needs_reference(method, config) {
            true => pollster::block_on(WeightPlan::of_folder(folder, model, false))?.total(),
            false => 0,
        };
        let vision = &model.vision;
        let patches = photo * vision.merge_area();
        let sampled = match method {
            Method::Grpo => Workload {
                patches,
                prompt,
                bucket: globe_engine::PROMPT_BUCKET,
                answers: rollout.group_size,
                max_tokens: rollout.max_tokens,
                ..Workload::default()
            },
            Method::Sft | Method::Reward => Workload { patches, ..Workload::default() },
        };
        let sampling = WeightPlan::default().plan(model, &sampled).work_bytes();
        // Sequences of a pass, and tokens of the longest.
        let (groups, sequence) = match (method, parts::packing(method, config)) {
            (Method::Grpo, _) => {
                (config.training.micro_batch.div_ceil(rollout.group_size).max(1), group)
            }
            (_, Some(packed)) => (1, group.max(packed)),
            (_, None) => (config.training.micro_batch, group),
        };
        let adapter = match is_full {
            true => AdapterPlan::default(),
            false => Qwen2_5Vl::adapter_plan(model, config.lora.rank, |m| is_target(config, m)),
        };
        let work = TrainingWorkload {
            sequences: groups,
            tokens: sequence,
            targets: sequence - prompt,
            adapter_width: adapter.width,
        };
        // What shares a sequence may be photos almost throughout.
        let patches = (photo + sequence - group) * vision.merge_area();
        let tower = match config.model.train_vision {
            true => tower_bytes(vision, patches, groups),
            false => 0,
        };
        Ok(Self {
            prompt,
            group,
            parameters,
            trained: trained(config, model, &specs),
            adapter,
            weights: weights(config, &specs),
            reference,
            sampling,
            pass: TrainingPlan::new(model, &work),
            tower,
        })
    }

    /// Errors if more is needed than may be used, as far as that is known.
    ///
    /// # Errors
    /// [`Error::TrainingOverBudget`].
    pub fn check(&self, config: &Config, budget: Option<u64>) -> Result<(), Error> {
        let (need, reference) = (self.peak(config), self.reference);
        match budget {
            Some(budget) if need > budget => {
                Err(Error::TrainingOverBudget { need, budget, reference })
            }
            _ => Ok(()),
        }
    }

    /// Gradients and the two means of the optimiser, and the values of an adapter.
    fn trained_bytes(&self, config: &Config) -> u64 {
        // All weights are counted as weights.
        let (own, values) = match config.model.weights {
            Weights::Full => (0, self.trained),
            _ => (self.adapter.size_bytes(), self.adapter.values),
        };
        let means = match config.optimiser.state_bits {
            StateBits::Eight => ByteMeans::size_bytes(values),
            StateBits::ThirtyTwo => 8 * values as u64,
        };
        own + 4 * values as u64 + means
    }

    fn peak(&self, config: &Config) -> u64 {
        let pass = self.pass.size_bytes() + self.tower;
        self.weights + self.reference + self.trained_bytes(config) + self.sampling.max(pass)
    }

    fn describe(&self, method: Method, config: &Config) -> String {
        let (rollout, training) = (&config.rollout, &config.training);
        let per_step = match method {
            Method::Grpo => format!(
                "{} photos x {} answers of at most {} tokens",
                rollout.prompts, rollout.group_size, rollout.max_tokens
            ),
            Method::Sft | Method::Reward => format!("{} rows", rollout.prompts),
        };
        let size = |n: u64| format!("{:>12}", bytes(n));
        let millions = self.trained as f64 / 1e6;
        let (trained, held) = match (config.model.weights, config.model.train_vision) {
            (Weights::Full, false) => (
                format!("{millions:.1} million weights, without the tower"),
                "gradients, optimiser",
            ),
            (Weights::Full, true) => {
                (format!("{millions:.1} million weights, with the tower"), "gradients, optimiser")
            }
            _ => (
                format!(
                    "an adapter of rank {}, {millions:.1} million parameters",
                    config.lora.rank
                ),
                "adapter, gradients, optimiser",
            ),
        };
        let copy = match self.reference {
            0 => String::new(),
            bytes => format!("         {} copy before training, for loss.beta\n", size(bytes)),
        };
        let tower = match self.tower {
            0 => String::new(),
            n => format!(", tower {}", bytes(n)),
        };
        let pass = &self.pass;
        format!(
            "trained  {trained}\n\
             steps    {}, each {per_step}; prompts of about {} tokens\n\
             memory   {} weights\n\
             \x20        {} {held}\n\
             {copy}\
             \x20        {} {}\n\
             \x20        {} training pass: inputs of layers {}, kept {}, one layer {}, head {}{tower}\n\
             \x20        {} at the peak\n",
            training.steps,
            self.prompt,
            size(self.weights),
            size(self.trained_bytes(config)),
            size(self.sampling),
            match method {
                Method::Grpo => "cache and work while answers are sampled",
                Method::Sft | Method::Reward => "the vision tower at work",
            },
            size(pass.size_bytes() + self.tower),
            bytes(pass.inputs),
            bytes(pass.kept),
            bytes(pass.layer),
            bytes(pass.head),
            size(self.peak(config)),
        )
    }

    /// What the roofs of the adapter allow; real kernels stay below them.
    fn time(&self, method: Method, config: &Config, roof: &Roof) -> String {
        let (rollout, training) = (&config.rollout, &config.training);
        let flops = |tokens: usize| 2.0 * self.parameters as f64 * tokens as f64;
        let rate = roof.gigaflops_per_second * 1e9;
        let sampled = if method == Method::Grpo { rollout.prompts } else { 0 };
        let decode = sampled as f64 * rollout.max_tokens as f64 * self.weights as f64
            / (roof.copy_gigabytes_per_second * 1e9);
        let prefill = sampled as f64 * flops(self.prompt) / rate;
        let sequences = match method {
            Method::Grpo => rollout.prompts * rollout.group_size.div_ceil(training.micro_batch),
            Method::Sft | Method::Reward => rollout.prompts,
        };
        // Forward, forward again for the activations, the gradient of every input, and of every weight.
        let passes = if config.model.weights == Weights::Full { 4.0 } else { 3.0 };
        let train = passes * sequences as f64 * flops(self.group) / rate;
        format!(
            "time     at least {:.1} s a step at the roofs measured now ({:.0} GB/s, {:.0} GFLOP/s): \
             {:.1} s sampling, {:.1} s training\n",
            decode + prefill + train,
            roof.copy_gigabytes_per_second,
            roof.gigaflops_per_second,
            decode + prefill,
            train,
        )
    }
}

/// Bytes that a tower in training keeps of `groups` times so many patches, and one block run backwards.
fn tower_bytes(vision: &VisionConfig, patches: usize, groups: usize) -> u64 {
    let (h, ffn) = (vision.hidden_size, vision.intermediate_size);
    let kept = groups * ((vision.depth + 1) * h + vision.patch_values());
    // A block holds its activations and, backwards, about as much again in gradients.
    let block = 2 * (5 * h + 4 * 2 * h + 4 * ffn);
    (4 * patches * (kept + block)) as u64
}

/// Whether the configuration wants an adapter beside a module.
fn is_target(config: &Config, module: &str) -> bool {
    config.lora.targets.iter().any(|target| module.ends_with(&format!(".{target}")))
}

/// Values that are trained, those of whole blocks.
fn trained(config: &Config, model: &ModelConfig, specs: &[TensorSpec]) -> usize {
    if config.model.weights == Weights::Full {
        let is_trained =
            |spec: &&TensorSpec| config.model.train_vision || !spec.name.starts_with("visual.");
        let size = |spec: &TensorSpec| match spec.class {
            Class::Vector => spec.rows,
            _ => spec.rows * spec.cols.next_multiple_of(BLOCK),
        };
        return specs.iter().filter(is_trained).map(size).sum();
    }
    let modules = Qwen2_5Vl::lora_modules(model).into_iter();
    let modules = modules.filter(|(module, _)| is_target(config, module));
    modules.map(|(_, [n_out, n_in])| config.lora.rank * (n_out + n_in)).sum()
}

/// Bytes of the weights.
fn weights(config: &Config, specs: &[TensorSpec]) -> u64 {
    // Bytes per weight, scales included.
    let (language, tower) = match config.model.weights {
        Weights::Qlora => (0.5625, 1.0625),
        Weights::Lora => (2.0, 2.0),
        Weights::Full => (4.0, 4.0),
    };
    let bytes = specs.iter().map(|spec| {
        let each = match spec.class {
            Class::Text | Class::Embedding => language,
            Class::Vision => tower,
            Class::Vector => return 4.0 * spec.rows as f64,
        };
        (spec.rows * spec.cols.next_multiple_of(BLOCK)) as f64 * each
    });
    bytes.sum::<f64>() as u64
}
