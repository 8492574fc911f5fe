//! `globe train --dry-run`: what a run does, takes and lasts, from `config.json` alone.

use globe_format::BLOCK;
use globe_format::packed::Class;
use globe_model::{Config as ModelConfig, Qwen2_5Vl};
use globe_train::assemble::stream;
use globe_train::config::{Config, Weights};
use globe_train::data::Part;

use super::{Method, parts};
use crate::bench::Roof;
use crate::console::print;
use crate::exit::{Exit, Fail, OrUsage};

/// Tokens of the question besides those of the photo.
const QUESTION_TOKENS: usize = 256;
/// Measurements of each roof.
const REPEATS: usize = 3;
const GIB: f64 = (1u64 << 30) as f64;

/// Sizes of a step.
struct Plan {
    prompt: usize,
    /// Tokens of one group in training: the prompt once and all its answers.
    group: usize,
    parameters: usize,
    adapter: usize,
    weights: u64,
    cache: u64,
    inputs: u64,
    layer: u64,
    logits: u64,
}

/// Prints the plan.
pub fn run(method: Method, config: &Config) -> Result<Exit, Fail> {
    let folder = parts::model_folder(config)?;
    let model = pollster::block_on(ModelConfig::load(&folder)).or_usage()?;
    let compute = parts::open_device(config)?;
    let plan = Plan::new(method, config, &model);
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
    fn new(method: Method, config: &Config, model: &ModelConfig) -> Self {
        let (text, rollout) = (&model.text, &config.rollout);
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
        // Bytes per weight, scales included.
        let (language, tower) = match config.model.weights {
            Weights::Qlora => (0.5625, 1.0625),
            Weights::Lora => (2.0, 2.0),
            Weights::Full => (4.0, 4.0),
        };
        let is_text = |name: &str| !name.starts_with("visual.");
        let parameters = specs.iter().filter(|s| is_text(&s.name)).map(|s| s.rows * s.cols).sum();
        let bytes = specs.iter().map(|spec| {
            let each = match spec.class {
                Class::Text | Class::Embedding => language,
                Class::Vision => tower,
                Class::Vector => return 4.0 * spec.rows as f64,
            };
            (spec.rows * spec.cols.next_multiple_of(BLOCK)) as f64 * each
        });
        let weights = bytes.sum::<f64>() as u64;
        let is_target = |module: &str| {
            config.lora.targets.iter().any(|target| module.ends_with(&format!(".{target}")))
        };
        let modules = Qwen2_5Vl::lora_modules(model).into_iter();
        let modules = modules.filter(|(module, _)| is_target(module));
        let adapter = modules.map(|(_, [n_out, n_in])| config.lora.rank * (n_out + n_in)).sum();
        let (layers, hidden) = (text.num_hidden_layers, text.hidden_size);
        let kv = text.n_kv_heads() * text.head_dim();
        let q = text.num_attention_heads * text.head_dim();
        let slots = prompt + rollout.group_size * rollout.max_tokens;
        let cache = if method == Method::Grpo { 8 * (layers * kv * slots) } else { 0 };
        let groups = config.training.micro_batch.div_ceil(rollout.group_size).max(1);
        // A layer holds its activations and, backwards, about as much again in gradients.
        let width = 5 * hidden + 4 * (q + kv) + 4 * text.intermediate_size;
        Self {
            prompt,
            group,
            parameters,
            adapter,
            weights,
            cache: cache as u64,
            inputs: (4 * (layers + 1) * group * groups * hidden) as u64,
            layer: (2 * 4 * group * width) as u64,
            logits: 2 << 26,
        }
    }

    /// Values, gradients and the two means of the optimiser, f32 each.
    fn trained_bytes(&self) -> u64 {
        16 * self.adapter as u64
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
        let gib = |bytes: u64| bytes as f64 / GIB;
        let training_bytes = self.inputs + self.layer + self.logits;
        let peak = self.weights + self.trained_bytes() + self.cache.max(training_bytes);
        format!(
            "adapter  rank {}, {:.1} million parameters\n\
             steps    {}, each {per_step}; prompts of about {} tokens\n\
             memory   {:7.2} GiB weights\n\
             \x20        {:7.2} GiB adapter, gradients, optimiser\n\
             \x20        {:7.2} GiB cache of the answers while they are sampled\n\
             \x20        {:7.2} GiB training pass ({:.2} inputs of layers, {:.2} one layer, {:.2} logits)\n\
             \x20        {:7.2} GiB at the peak, besides the vision tower's own\n",
            config.lora.rank,
            self.adapter as f64 / 1e6,
            training.steps,
            self.prompt,
            gib(self.weights),
            gib(self.trained_bytes()),
            gib(self.cache),
            gib(training_bytes),
            gib(self.inputs),
            gib(self.layer),
            gib(self.logits),
            gib(peak),
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
        // Forward, forward again for the activations, and the gradient of every input.
        let train = 3.0 * sequences as f64 * flops(self.group) / rate;
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
