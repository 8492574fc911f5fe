//! Training of all weights, those of the tower included, against transformers, TRL and torch.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use globe_engine::Engine;
use globe_format::{Checkpoint, Folder, Mapped};
use globe_model::{AnswerGroup, Config, Model, Precision};
use globe_ops::Compute;
use globe_policy::{ModelPolicy, PolicyOptions};
use globe_tests::{assert_close, golden_root, gpu, random};
use globe_train::optimiser::{AdamWConfig, StateBits};
use globe_train::{Policy, Sequence, Side};

use crate::training::{Case, STEPS_TOL, TEMPERATURE, TOL, prompt_of, ten_steps, trl};

/// As in tests/golden/training/make.py.
const FULL_LR: f64 = 1e-4;

/// What torch computed with all weights: full.safetensors of a case.
struct Expected(Checkpoint<Mapped>);

impl Expected {
    fn open(name: &str) -> Self {
        let files = Folder::open(golden_root().join("training").join(name)).unwrap();
        Self(pollster::block_on(Checkpoint::open_file(&files, "full.safetensors")).unwrap())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        pollster::block_on(self.0.read_f32(name)).unwrap()
    }

    /// Compares tensors with their norms and products with noise, and some value by value, in units
    /// of the norm.
    fn assert_match(&self, kind: &str, got: &BTreeMap<String, Vec<f32>>, tolerance: f32) {
        let prints = format!("{kind}.print.");
        let names: Vec<&str> = self.0.names().filter_map(|n| n.strip_prefix(&prints)).collect();
        assert_eq!(got.keys().collect::<Vec<_>>(), names, "{kind}");
        let (mut wrong, mut in_full) = (Vec::new(), 0);
        for (name, values) in got {
            let print = self.floats(&format!("{prints}{name}"));
            let noise = random(values.len(), 1);
            let wide = |v: &f32| f64::from(*v);
            let norm = values.iter().map(|v| wide(v).powi(2)).sum::<f64>().sqrt();
            let product: f64 = values.iter().zip(&noise).map(|(v, n)| wide(v) * wide(n)).sum();
            // A product of n errors with noise in [-1, 1) is as large as their norm, by far at most.
            let off = [norm as f32 - print[0], product as f32 - print[1]];
            let limit = tolerance * print[0].max(1e-5);
            if off.iter().any(|off| off.abs() > limit || off.is_nan()) {
                wrong.push(format!("{name}: norm {norm}, product {product}, expected {print:?}"));
            }
            if self.0.info(&format!("{kind}.{name}")).is_some() {
                let expected = self.floats(&format!("{kind}.{name}"));
                let unit = |values: &[f32]| -> Vec<f32> {
                    values.iter().map(|v| v / print[0].max(1e-5)).collect()
                };
                assert_close(&format!("{kind} {name}"), &unit(values), &unit(&expected), tolerance);
                in_full += 1;
            }
        }
        assert!(
            wrong.is_empty(),
            "{kind}: {} of {}:\n{}",
            wrong.len(),
            got.len(),
            wrong.join("\n")
        );
        assert!(in_full > 10, "{kind}: only {in_full} value by value");
    }
}

fn engine(case: &Case, compute: &Compute) -> Engine {
    let (precision, mut quiet) = (Precision::Trained, |_, _| {});
    let engine = Engine::load_as(&case.golden.folder, compute.clone(), precision, &mut quiet);
    pollster::block_on(engine).unwrap()
}

fn check_gradients(name: &'static str, compute: &Compute) {
    let (case, expected) = (Case::open(name), Expected::open(name));
    let mut engine = engine(&case, compute);
    let photos = case.golden.photos();
    let photos: Vec<_> = photos.iter().collect();
    let prepared = engine.prepare(&photos, &case.golden.prompt(), None).unwrap();
    let answers = case.answers();
    let answers: Vec<&[u32]> = answers.iter().map(Vec::as_slice).collect();
    let (prompt, grids) = (&prepared.ids[..], &prepared.grids[..]);

    let model = engine.model_mut();
    let seen = model.forward_images(&prepared.pixel_values, grids).unwrap();
    let images = Some(seen.features.clone());
    let group = AnswerGroup { prompt, images, grids, answers: &answers };
    let pass = model.forward(std::slice::from_ref(&group), TEMPERATURE as f32, true).unwrap();
    let logps = pollster::block_on(pass.logps()).unwrap();
    let logps: Vec<Vec<f32>> = logps.into_iter().map(|l| l.logp).collect();
    let (loss, dlogp) = trl(&case, &logps);
    assert_close("loss", &[loss as f32], &expected.floats("loss")[..1], TOL);

    let mut sum = model.weight_gradients(true).unwrap();
    let dfeatures = model.backward(pass, &dlogp, &mut sum).unwrap().unwrap();
    model.backward_images(seen, dfeatures, &mut sum).unwrap();
    let (tensors, mut got) = (sum.into_tensors(), BTreeMap::new());
    let parameters = model.weight_parameters(true);
    let mut each = |name: &str, shape: &[usize], values: Vec<f32>| {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        got.insert(name.to_owned(), values);
        Ok::<_, globe_model::Error>(())
    };
    pollster::block_on(parameters.read(|i, _| Ok(tensors[i].clone()), &mut each)).unwrap();
    expected.assert_match("gradient", &got, TOL);
}

#[test]
fn gradients_match_torch() {
    for name in ["tied", "untied"] {
        check_gradients(name, gpu());
        // Matrices in many parts, as an adapter with small bindings needs them.
        check_gradients(name, &gpu().clone().limited_to(16 << 10));
    }
}

#[test]
fn gradients_on_the_cpu_path_match_torch() {
    check_gradients("tied", &Compute::cpu());
    check_gradients("untied", &Compute::cpu());
}

fn policy_of(case: &Case, compute: &Compute, vision: bool) -> ModelPolicy {
    policy_with(case, compute, vision, AdamWConfig::default())
}

fn policy_with(case: &Case, compute: &Compute, vision: bool, adamw: AdamWConfig) -> ModelPolicy {
    let mut quiet = |_, _| {};
    let folder = &case.golden.folder;
    let reference = pollster::block_on(async {
        let config = Config::load(folder).await?;
        Model::load(folder, config, compute, Precision::Stored, &mut quiet).await
    });
    let engine = Rc::new(RefCell::new(engine(case, compute)));
    let options = PolicyOptions {
        prompt: case.golden.prompt(),
        max_pixels: None,
        adamw,
        identity: "golden".into(),
    };
    ModelPolicy::of_weights(engine, options, vision, Some(reference.unwrap())).unwrap()
}

/// The values of all weights that are trained, by name.
fn weights(policy: &mut ModelPolicy) -> BTreeMap<String, Vec<f32>> {
    let weights = policy.parameters().unwrap();
    weights.into_entries().map(|(name, _, values)| (name, values)).collect()
}

/// Ten steps of TRL's loss with torch's AdamW; halfway the policy is saved and another goes on.
fn check_steps(name: &'static str, vision: bool, compute: &Compute) {
    let (case, expected) = (Case::open(name), Expected::open(name));
    let (prompt, answers) = (prompt_of(&case), case.answers());
    let batch: Vec<Sequence> =
        answers.iter().map(|ids| Sequence { prompt: &prompt, ids }).collect();
    let mut policy = policy_of(&case, compute, vision);
    let before = weights(&mut policy);
    let another = || policy_of(&case, compute, vision);
    let (mut policy, losses, norms) = ten_steps(&case, FULL_LR, policy, another);
    assert_close("loss", &losses, &expected.floats("loss"), STEPS_TOL);
    assert_close("norm", &norms, &expected.floats("grad_norm"), STEPS_TOL);
    let mut change = weights(&mut policy);
    for (name, values) in &mut change {
        values.iter_mut().zip(&before[name]).for_each(|(after, before)| *after -= before);
    }
    expected.assert_match("change", &change, STEPS_TOL);

    // The reference is the model before training, whatever was trained since.
    let reference = policy.logps(&batch, TEMPERATURE, Side::Reference).unwrap();
    let reference: Vec<f32> = reference.into_iter().flat_map(|l| l.logp).collect();
    assert_close("reference", &reference, &case.unpadded("reference"), TOL);
    let trained = policy.logps(&batch, TEMPERATURE, Side::Trained).unwrap();
    assert!(trained.iter().flat_map(|l| &l.logp).zip(&reference).any(|(a, b)| (a - b).abs() > 0.1));
}

#[test]
fn ten_steps_match_torch_across_a_restart() {
    check_steps("tied", false, gpu());
    check_steps("untied", true, gpu());
}

#[test]
fn ten_steps_on_the_cpu_path_match_torch() {
    check_steps("tied", false, &Compute::cpu());
}

/// Means in 8 bits learn nearly as those in 32 do, and are saved to the bit.
#[test]
fn means_in_8_bits_follow_torch_from_afar() {
    let (case, expected) = (Case::open("untied"), Expected::open("untied"));
    let adamw = AdamWConfig { state_bits: StateBits::Eight, ..AdamWConfig::default() };
    let start = || policy_with(&case, gpu(), true, adamw);
    let (_, losses, _) = ten_steps(&case, FULL_LR, start(), start);
    let exact = expected.floats("loss");
    let change = exact[9] - exact[0];
    let off: Vec<f32> = losses.iter().zip(&exact).map(|(a, b)| (a - b) / change).collect();
    assert!(off.iter().all(|off| off.abs() < 0.1), "{losses:?} {exact:?}");
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let case = Case::open("tied");
    let engine = Rc::new(RefCell::new(case.engine(gpu())));
    let options = PolicyOptions {
        prompt: case.golden.prompt(),
        max_pixels: None,
        adamw: AdamWConfig::default(),
        identity: String::new(),
    };
    let error = ModelPolicy::of_weights(engine, options, false, None).err().unwrap();
    assert!(error.to_string().contains("shared_parts"), "bf16 blocks are not trained: {error}");
    let mut policy = policy_of(&case, gpu(), false);
    assert!(policy.adapter().unwrap_err().to_string().contains("all weights"));
    let mut state = policy.save().unwrap();
    state.adapter = Some(case.adapter().0);
    assert!(policy.load(&state).unwrap_err().to_string().contains("has an adapter"));
}
