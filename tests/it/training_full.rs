//! Training of all weights, those of the tower included, against transformers, TRL and torch.

use std::collections::BTreeMap;

use globe_engine::Engine;
use globe_format::{Checkpoint, Folder, Mapped};
use globe_model::{AnswerGroup, Precision};
use globe_ops::Compute;
use globe_tests::{assert_close, golden_root, gpu, random};

use crate::training::{Case, TEMPERATURE, TOL, trl};

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
            if off.iter().any(|off| !(off.abs() <= tolerance * print[0].max(1e-5))) {
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
    let pass = model.forward(&group, TEMPERATURE as f32, true).unwrap();
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
    };
    pollster::block_on(parameters.read(Some(&tensors), &mut each)).unwrap();
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
