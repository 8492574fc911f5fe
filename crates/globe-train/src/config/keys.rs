//! The keys. Their documentation here is the documentation of the shipped files.

use serde::{Deserialize, Serialize};

use crate::{
    loss::{Importance, LossType, SamplerMode, Scaling},
    optimiser::{Decay, StateBits},
    rewards::{Combination, NameMatch, VisualForm},
};

/// What is trained and how the frozen weights are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// An adapter over 4-bit weights.
    #[default]
    Qlora,
    /// An adapter over 16-bit weights.
    Lora,
    /// All weights of the language model, in f32.
    Full,
}

/// Form of the geo reward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeoKind {
    /// GLOBE's rule on names.
    #[default]
    Names,
    /// `exp(-km / tau)`.
    Distance,
}

/// Who judges locatability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgeKind {
    /// Nobody: the weight of locatability must be 0.
    #[default]
    None,
    /// An OpenAI-compatible server.
    Server,
    /// An adapter over the policy's base, in this process.
    Adapter,
}

/// Log-probabilities that ratios are taken against when a batch serves several steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OldLogps {
    /// One pass of the training kernels after generation, as TRL does.
    #[default]
    Recompute,
    /// Those of the sampler: no pass, and sampler differences count as change of policy.
    Sampling,
}

/// One key, for documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Section, without brackets.
    pub section: &'static str,
    /// Name within the section.
    pub name: &'static str,
    /// What it means.
    pub doc: String,
}

macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Struct:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $ty:ty = $default:expr, )+
        }
    )+) => {
        /// All settings of a run.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Config {
            $( $(#[doc = $section_doc])+ pub $section: $Struct, )+
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub struct $Struct {
                $( $(#[doc = $doc])+ pub $key: $ty, )+
            }

            impl Default for $Struct {
                fn default() -> Self {
                    Self { $( $key: $default, )+ }
                }
            }
        )+

        impl Config {
            /// Every key in the order of the shipped files.
            pub fn keys() -> Vec<Key> {
                vec![$( $( Key {
                    section: stringify!($section),
                    name: stringify!($key),
                    doc: [$( $doc ),+].map(str::trim).join("\n"),
                }, )+ )+]
            }
        }
    };
}

sections! {
    /// The run itself.
    run: RunSection {
        /// Folder for checkpoints, metrics and reports.
        output: String = "runs/globe".into(),
        /// Decides the order of the data and every sampled token.
        seed: u64 = 0,
    }
    /// The model that is trained.
    model: ModelSection {
        /// Folder with config.json and safetensors files.
        path: String = String::new(),
        /// `qlora` (adapter over 4-bit weights), `lora` (over 16-bit) or `full` (all weights of the
        /// language model, in f32: 16 bytes each, and 2 more for the copy that loss.beta compares with).
        weights: Weights = Weights::Qlora,
        /// Adapter folder to start from; empty starts fresh. Not for `full`.
        adapter: String = String::new(),
        /// `auto`, `gpu`, `software` (a driver that computes on the processor), or `cpu` for small models.
        device: String = "auto".into(),
        /// What is asked about a photo: `reason`, `direct`, or a file with the text.
        question: String = "reason".into(),
        /// Train the vision tower too, with `full`. Frozen, its features are computed once per photo.
        train_vision: bool = false,
        /// Photos are reduced to this many pixels; 0 keeps the model's own limit.
        max_pixels: u64 = 1_003_520,
    }
    /// The adapter; not read for `full`.
    lora: LoraSection {
        /// Rank.
        rank: usize = 16,
        /// Scale: updates are multiplied by alpha / rank.
        alpha: f64 = 32.0,
        /// Scale by alpha / sqrt(rank) instead.
        rslora: bool = false,
        /// Projections of the language model that get an adapter.
        targets: Vec<String> =
            ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
                .map(String::from)
                .to_vec(),
    }
    /// Photos and what is known about them.
    data: DataSection {
        /// A .parquet, .jsonl or .csv file, or a folder of such files.
        path: String = String::new(),
        /// Folder that relative photo paths start at; empty means the folder of the data.
        images: String = String::new(),
        /// Share of rows set apart for evaluation.
        eval_fraction: f64 = 0.0,
        /// False keeps the order of the files.
        shuffle: bool = true,
        /// Row groups held in memory and mixed.
        window_blocks: usize = 2,
    }
    /// Sampling of answers.
    rollout: RolloutSection {
        /// Photos per generation; rows per step where the answers are known.
        prompts: usize = 6,
        /// Answers per photo, at least 2.
        group_size: usize = 8,
        /// Longest answer in tokens.
        max_tokens: usize = 512,
        /// Temperature, also within the log-probabilities of the loss.
        temperature: f64 = 1.0,
        /// Nucleus; below 1 the log-probabilities no longer describe what was sampled.
        top_p: f64 = 1.0,
        /// Most probable tokens considered; 0 is all. Above 0 biases as top_p does.
        top_k: usize = 0,
        /// Replace photos whose answers all earn the same.
        dynamic_sampling: bool = false,
        /// Generations tried before equal groups are accepted.
        dynamic_rounds: usize = 3,
    }
    /// Rewards: weights, then details.
    rewards: RewardsSection {
        /// Weight of the right place.
        geo: f64 = 1.0,
        /// Weight of the clues named in the thought.
        visual: f64 = 0.5,
        /// Weight of the judge's opinion of the thought.
        locatability: f64 = 0.0,
        /// Weight of the format.
        format: f64 = 1.0,
        /// `additive`, or `gated`: without the format nothing else counts.
        combination: Combination = Combination::Additive,
        /// `names` (1 / 0.2 / 0) or `distance` (exp(-km / tau)).
        geo_form: GeoKind = GeoKind::Names,
        /// Share of the city in `names`.
        geo_alpha: f64 = 0.8,
        /// Kilometres at which `distance` falls to 1 / e.
        geo_tau_km: f64 = 200.0,
        /// `gazetteer` (aliases and exonyms count) or `letters` (GLOBE's released rule).
        geo_match: NameMatch = NameMatch::Gazetteer,
        /// `f1`, `recall` (GLOBE's code) or `precision` (GLOBE's paper).
        visual_form: VisualForm = VisualForm::F1,
        /// Ask the judge about clues nobody annotated.
        visual_verify: bool = false,
        /// `none`, `server` or `adapter`.
        judge: JudgeKind = JudgeKind::None,
        /// Adapter folder of the judge, for `adapter`.
        judge_adapter: String = String::new(),
        /// Address of the judge up to /v1, for `server`; http only.
        judge_url: String = "http://localhost:8000/v1".into(),
        /// Name of the judge's model, for `server`.
        judge_model: String = "judge".into(),
        /// Attempts per question before training stops with a checkpoint.
        judge_attempts: u32 = 5,
        /// Questions asked of the server at the same time.
        judge_parallel: usize = 8,
        /// Seconds per attempt.
        judge_timeout_s: f64 = 60.0,
    }
    /// The loss.
    loss: LossSection {
        /// `grpo`, `bnpo`, `dr_grpo` or `dapo`.
        loss_type: LossType = LossType::Dapo,
        /// Ratio per `token` or per `sequence`.
        importance: Importance = Importance::Token,
        /// The ratio is clipped at 1 - epsilon_low.
        epsilon_low: f64 = 0.2,
        /// The ratio is clipped at 1 + epsilon_high.
        epsilon_high: f64 = 0.2,
        /// Upper limit of the ratio for negative advantages; 0 is none.
        delta: f64 = 0.0,
        /// Weight of the divergence from the model before training; 0 needs no second pass.
        beta: f64 = 0.0,
        /// Advantages are divided by the deviation of the `group`, of the `batch`, or by `none`.
        scale_rewards: Scaling = Scaling::Group,
        /// Leave answers that ran into max_tokens out of the loss.
        mask_truncated: bool = false,
        /// `off`, `token_truncate`, `token_mask`, `sequence_truncate` or `sequence_mask`.
        sampler_correction: SamplerMode = SamplerMode::Off,
        /// Upper end of the correction's range.
        sampler_max: f64 = 3.0,
        /// `recompute`, or `sampling` to save one pass, when a generation serves several steps.
        old_logps: OldLogps = OldLogps::Recompute,
    }
    /// AdamW.
    optimiser: OptimiserSection {
        /// Highest learning rate.
        lr: f64 = 1e-6,
        /// Share of all steps in which it rises.
        warmup: f64 = 0.01,
        /// `cosine` or `constant` afterwards.
        schedule: Decay = Decay::Cosine,
        /// Decay of the mean of gradients.
        beta1: f64 = 0.9,
        /// Decay of the mean of squared gradients.
        beta2: f64 = 0.95,
        /// Added to the root of the latter.
        eps: f64 = 1e-8,
        /// Weight decay, of matrices alone: biases and norms keep theirs.
        weight_decay: f64 = 0.1,
        /// Bits of each of the two means: 32, or 8 (blockwise, 2 bytes per weight instead of 8).
        state_bits: StateBits = StateBits::ThirtyTwo,
        /// Gradients are scaled down to this norm; 0 does not.
        max_grad_norm: f64 = 1.0,
        /// Steps in a row with a gradient that is not finite before training stops.
        max_bad_steps: u64 = 3,
    }
    /// Amounts.
    training: TrainingSection {
        /// Optimiser steps in all.
        steps: u64 = 1000,
        /// Answers on the device at once; changes speed and memory, not the result (but bnpo's).
        micro_batch: usize = 1,
        /// Optimiser steps a generation is cut into; must divide prompts * group_size.
        steps_per_generation: usize = 1,
        /// Passes over a generation.
        iterations: usize = 1,
        /// With known answers: put several rows into one sequence, in which they do not see each other.
        /// Equal to a sequence per row but for rounding, and faster where rows are short. Rows per
        /// pass follow from their lengths, micro_batch is not read.
        packing: bool = true,
        /// Longest such sequence in tokens, those of photos included; a longer row is alone. More take
        /// more memory, and gain nothing once a sequence fills the device.
        max_packed_tokens: usize = 2048,
        /// Share of every label that imitation spreads over the vocabulary. Evaluations are without.
        label_smoothing: f64 = 0.0,
        /// Evaluations without improvement before training with known answers stops; 0 is never.
        patience: usize = 0,
        /// Steps between evaluations of training with known answers; 0 is never.
        eval_every: u64 = 0,
    }
    /// Checkpoints.
    checkpoint: CheckpointSection {
        /// Steps between them.
        every: u64 = 50,
        /// How many are kept; 0 keeps all.
        keep: usize = 3,
        /// Steps between copies of the last step on the host, from which a lost device is saved; 0 is
        /// never. Of adapters alone: with `full` a copy would take 12 bytes per weight, so that a lost
        /// device goes back to the last checkpoint, at most `every` steps.
        host_copy_every: u64 = 1,
    }
    /// What a person sees.
    watch: WatchSection {
        /// Live curves when the output is a terminal.
        terminal: bool = true,
        /// TensorBoard event files.
        tensorboard: bool = true,
        /// Steps between reports of sample answers; 0 is never.
        samples_every: u64 = 10,
        /// Photos per report.
        samples: usize = 4,
    }
}
