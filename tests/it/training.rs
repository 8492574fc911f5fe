//! The training pass and the policy over it, against transformers, peft, TRL and torch.

use std::path::PathBuf;
use std::sync::Arc;

use globe_engine::{Engine, Prepared};
use globe_format::{Checkpoint, Folder, Mapped};
use globe_model::{AnswerGroup, LoraModules, LoraShape};
use globe_ops::{Compute, Tensor};
use globe_policy::{ModelPolicy, PolicyOptions, from_peft};
use globe_tests::{Golden, assert_close, golden_root, gpu};
use globe_train::checkpoint::{Adapter, AdapterConfig};
use globe_train::loss::{GrpoConfig, LossType, Scope, SequenceTerms, grpo_loss};
use globe_train::optimiser::AdamWConfig;
use globe_train::{Policy, Prompt, Sampling, Sequence, Side};

/// As in tests/golden/training/make.py.
pub(crate) const TEMPERATURE: f64 = 0.8;
const BETA: f64 = 0.04;
const LR: f64 = 1e-2;
const MAX_GRAD_NORM: f64 = 1.0;

/// Log-probabilities and gradients in f32 against f64, in units of the largest value.
pub(crate) const TOL: f32 = 2e-4;
/// The same after ten steps of AdamW, which divides small gradients by small roots.
pub(crate) const STEPS_TOL: f32 = 5e-3;

/// One folder of tests/golden/training.
pub(crate) struct Case {
    pub(crate) golden: Golden,
    pub(crate) folder: PathBuf,
    expected: Checkpoint<Mapped>,
}

impl Case {
    pub(crate) fn open(name: &'static str) -> Self {
        let folder = golden_root().join("training").join(name);
        let files = Folder::open(&folder).unwrap();
        let expected = pollster::block_on(Checkpoint::open_file(&files, "golden.safetensors"));
        Self { golden: Golden::open(name), folder, expected: expected.unwrap() }
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        pollster::block_on(self.expected.read_f32(name)).unwrap()
    }

    fn ints(&self, name: &str) -> Vec<u32> {
        let bytes = pollster::block_on(self.expected.read_bytes(name)).unwrap();
        bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    pub(crate) fn answers(&self) -> Vec<Vec<u32>> {
        let (all, lengths) = (self.ints("answers"), self.ints("lengths"));
        let rows = all.chunks_exact(all.len() / lengths.len());
        rows.zip(&lengths).map(|(row, n)| row[..*n as usize].to_vec()).collect()
    }

    /// Values of a padded tensor without what lies past the answers.
    pub(crate) fn unpadded(&self, name: &str) -> Vec<f32> {
        let (all, lengths) = (self.floats(name), self.ints("lengths"));
        let rows = all.chunks_exact(all.len() / lengths.len());
        rows.zip(&lengths).flat_map(|(row, n)| row[..*n as usize].to_vec()).collect()
    }

    pub(crate) fn adapter(&self) -> (AdapterConfig, LoraModules) {
        let adapter = Adapter::open(&self.folder).unwrap();
        (adapter.config.clone(), from_peft(adapter))
    }

    pub(crate) fn engine(&self, compute: &Compute) -> Engine {
        let mut quiet = |_, _| {};
        let engine = Engine::load(&self.golden.folder, compute.clone(), &mut quiet);
        pollster::block_on(engine).unwrap()
    }

    /// The prompt of the checkpoint with its photos, and their features.
    pub(crate) fn prepare(&self, engine: &Engine) -> (Prepared, Option<Tensor<2>>) {
        let photos = self.golden.photos();
        let photos: Vec<_> = photos.iter().collect();
        let mut prepared = engine.prepare(&photos, &self.golden.prompt(), None).unwrap();
        assert_eq!(prepared.ids, self.ints("prompt"));
        let features = engine.encode(&mut prepared).unwrap();
        (prepared, features)
    }
}

/// Expected values of all modules, by the names of the model.
fn modules(case: &Case, prefix: &str, like: &LoraModules) -> LoraModules {
    let name = |module: &str, matrix: &str| {
        let module = module.strip_prefix("model.").unwrap();
        format!("{prefix}base_model.model.model.language_model.{module}.{matrix}.weight")
    };
    let mut modules = like.clone();
    for (module, pair) in &mut modules {
        pair.a = case.floats(&name(module, "lora_A"));
        pair.b = case.floats(&name(module, "lora_B"));
    }
    modules
}

fn assert_modules_close(what: &str, got: &LoraModules, expected: &LoraModules, tolerance: f32) {
    assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (module, pair) in expected {
        assert_close(&format!("{what}: {module} A"), &got[module].a, &pair.a, tolerance);
        assert_close(&format!("{what}: {module} B"), &got[module].b, &pair.b, tolerance);
    }
}

/// d loss / d log-probability as TRL's loss has it, and the loss.
pub(crate) fn trl(case: &Case, logps: &[Vec<f32>]) -> (f64, Vec<Vec<f32>>) {
    let (reference, advantages) = (case.unpadded("reference"), case.floats("advantages"));
    let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let logps: Vec<Vec<f64>> = logps.iter().map(|l| wide(l)).collect();
    let mut rest = &wide(&reference)[..];
    let mut references = Vec::new();
    for logp in &logps {
        let (mine, others) = rest.split_at(logp.len());
        references.push(mine.to_vec());
        rest = others;
    }
    let masks: Vec<Vec<bool>> = logps.iter().map(|l| vec![true; l.len()]).collect();
    let sequences: Vec<SequenceTerms> = (0..logps.len())
        .map(|i| SequenceTerms {
            logp: &logps[i],
            reference: Some(&references[i]),
            mask: &masks[i],
            advantage: f64::from(advantages[i]),
            old: None,
            sampling: None,
            entropy: None,
        })
        .collect();
    let config = GrpoConfig { loss_type: LossType::Dapo, beta: BETA, ..GrpoConfig::default() };
    let tokens = logps.iter().map(Vec::len).sum::<usize>() as f64;
    let scope = Scope { sequences: logps.len() as f64, tokens, micro_batches: 1.0 };
    let loss = grpo_loss(&config, &sequences, scope).unwrap();
    let narrow = |row: Vec<f64>| row.into_iter().map(|g| g as f32).collect();
    (loss.loss, loss.dlogp.into_iter().map(narrow).collect())
}

fn check_gradients(name: &'static str, compute: &Compute) {
    let case = Case::open(name);
    let mut engine = case.engine(compute);
    let (config, start) = case.adapter();
    let shape = LoraShape { rank: config.r, scale: config.scaling() as f32 };
    engine.set_lora(shape, &start).unwrap();
    let (prepared, images) = case.prepare(&engine);
    let answers = case.answers();
    let answers: Vec<&[u32]> = answers.iter().map(Vec::as_slice).collect();
    let (prompt, grids) = (&prepared.ids[..], &prepared.grids[..]);
    let group = AnswerGroup { prompt, images, grids, answers: &answers };
    let pass =
        engine.model().forward(std::slice::from_ref(&group), TEMPERATURE as f32, true).unwrap();
    let logps = pollster::block_on(pass.logps()).unwrap();
    let flat = |pick: fn(&globe_model::AnswerLogps) -> &Vec<f32>| -> Vec<f32> {
        logps.iter().flat_map(|l| pick(l).clone()).collect()
    };
    assert_close("logp", &flat(|l| &l.logp), &case.unpadded("logp"), TOL);
    assert_close("entropy", &flat(|l| &l.entropy), &case.unpadded("entropy"), TOL);

    let logps: Vec<Vec<f32>> = logps.into_iter().map(|l| l.logp).collect();
    let (loss, dlogp) = trl(&case, &logps);
    assert_close("loss", &[loss as f32], &case.floats("loss")[..1], TOL);
    let mut sum = engine.model().lora_gradients();
    engine.model().backward(pass, &dlogp, &mut sum).unwrap();
    let tensors = sum.into_tensors();
    let parameters = engine.model_mut().lora_parameters();
    let got = pollster::block_on(parameters.read(Some(&tensors))).unwrap();
    let expected = modules(&case, "gradient.", &start);
    assert_modules_close("gradient", &got, &expected, TOL);

    engine.model_mut().switch_lora(false);
    let pass =
        engine.model().forward(std::slice::from_ref(&group), TEMPERATURE as f32, false).unwrap();
    let off = pollster::block_on(pass.logps()).unwrap();
    let off: Vec<f32> = off.into_iter().flat_map(|l| l.logp).collect();
    assert_close("reference", &off, &case.unpadded("reference"), TOL);
}

#[test]
fn gradients_match_torch() {
    for name in ["tied", "untied"] {
        check_gradients(name, gpu());
    }
}

#[test]
fn gradients_on_the_cpu_path_match_torch() {
    check_gradients("tied", &Compute::cpu());
}

fn policy_of(case: &Case, compute: &Compute) -> ModelPolicy {
    let engine = case.engine(compute);
    let (config, start) = case.adapter();
    let options = PolicyOptions {
        prompt: case.golden.prompt(),
        max_pixels: None,
        adamw: AdamWConfig::default(),
        identity: "golden".into(),
    };
    let engine = std::rc::Rc::new(std::cell::RefCell::new(engine));
    ModelPolicy::new(engine, options, config, &start).unwrap()
}

pub(crate) fn prompt_of(case: &Case) -> Prompt {
    let name = case.golden.facts["images"][0].as_str().unwrap();
    let image: Arc<[u8]> = std::fs::read(golden_root().join(name)).unwrap().into();
    Prompt { id: name.into(), image, question: None }
}

/// Ten steps of TRL's loss with torch's AdamW; halfway the policy is saved and another goes on. The
/// policy that ends, losses, and norms of gradients.
pub(crate) fn ten_steps(
    case: &Case,
    lr: f64,
    mut policy: ModelPolicy,
    another: impl Fn() -> ModelPolicy,
) -> (ModelPolicy, Vec<f32>, Vec<f32>) {
    let (prompt, answers) = (prompt_of(case), case.answers());
    let batch: Vec<Sequence> =
        answers.iter().map(|ids| Sequence { prompt: &prompt, ids }).collect();
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 0..10 {
        if step == 5 {
            let state = policy.save().unwrap();
            policy = another();
            policy.load(&state).unwrap();
            assert!(policy.save().unwrap() == state, "every bit comes back");
        }
        let backward = policy.backward(&batch, TEMPERATURE, &mut |logps| {
            let logps: Vec<Vec<f32>> = logps.iter().map(|l| l.logp.clone()).collect();
            let (loss, dlogp) = trl(case, &logps);
            losses.push(loss as f32);
            Ok(dlogp)
        });
        backward.unwrap();
        let outcome = policy.step(lr, MAX_GRAD_NORM).unwrap();
        assert!(outcome.applied);
        norms.push(outcome.grad_norm as f32);
    }
    (policy, losses, norms)
}

#[test]
fn ten_steps_match_torch_across_a_restart() {
    for name in ["tied", "untied"] {
        let case = Case::open(name);
        let start = || policy_of(&case, gpu());
        let (policy, losses, norms) = ten_steps(&case, LR, start(), start);
        assert_close("loss", &losses, &case.floats("loss"), STEPS_TOL);
        assert_close("norm", &norms, &case.floats("grad_norm"), STEPS_TOL);
        let got = from_peft(policy.adapter().unwrap());
        let expected = modules(&case, "after.", &got);
        assert_modules_close("after", &got, &expected, STEPS_TOL);
    }
}

/// What the sampler says about its tokens is what the training pass says about them.
#[test]
fn sampling_and_training_agree_on_log_probabilities() {
    let case = Case::open("tied");
    let mut policy = policy_of(&case, gpu());
    let prompt = prompt_of(&case);
    let sampling =
        Sampling { group_size: 4, max_tokens: 12, temperature: 0.8, top_p: 1.0, top_k: 0 };
    let groups = policy.rollout(std::slice::from_ref(&prompt), &[5], &sampling).unwrap();
    let batch: Vec<Sequence> =
        groups[0].iter().map(|c| Sequence { prompt: &prompt, ids: &c.ids }).collect();
    let logps = policy.logps(&batch, 0.8, Side::Trained).unwrap();
    for (completion, logps) in groups[0].iter().zip(&logps) {
        assert_eq!(completion.ids.len(), logps.logp.len());
        assert_close("logp", &completion.logp, &logps.logp, 1e-4);
    }
    // One group in another order, and one by one: the same.
    let reversed: Vec<Sequence> = batch.iter().rev().copied().collect();
    let mut other = policy.logps(&reversed, 0.8, Side::Trained).unwrap();
    other.reverse();
    for (i, sequence) in batch.iter().enumerate() {
        let alone = policy.logps(&[*sequence], 0.8, Side::Trained).unwrap();
        assert_close("alone", &alone[0].logp, &logps[i].logp, 2e-5);
        assert_close("reversed", &other[i].logp, &logps[i].logp, 2e-5);
    }
}
