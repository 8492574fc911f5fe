//! Rows that share a sequence learn what they learn alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use globe_engine::{Engine, Prepared};
use globe_image::{DecodeLimits, decode};
use globe_model::{AnswerGroup, Gradients, LoraShape, Model, Precision};
use globe_ops::Compute;
use globe_policy::{ModelPolicy, PolicyOptions};
use globe_tests::{Golden, assert_close, golden_root, gpu};
use globe_train::optimiser::AdamWConfig;
use globe_train::{Policy, Prompt, Sequence, Side};

use crate::training::Case;

/// Sums in another order, in units of the norm of a gradient or of the loss.
const TOL: f32 = 1e-5;
const TEMPERATURE: f32 = 0.7;

/// A prompt with its answers.
struct Row {
    prepared: Prepared,
    answers: Vec<Vec<u32>>,
}

fn image(name: &str) -> Vec<u8> {
    std::fs::read(golden_root().join("images").join(name)).unwrap()
}

/// Tokens of an answer, other ones for every seed.
fn answer(length: usize, seed: usize) -> Vec<u32> {
    (0..length).map(|i| ((7 * i + 13 * seed) % 200 + 20) as u32).collect()
}

/// Two photos of other sizes, one of them with two verdicts as a judge has them, text alone, and a row
/// whose answer is one token.
fn rows(golden: &Golden, engine: &Engine) -> Vec<Row> {
    let photo = |name: &str| decode(&image(name), &DecodeLimits::default()).unwrap();
    let row = |names: &[&str], answers: Vec<Vec<u32>>| {
        let photos: Vec<_> = names.iter().map(|name| photo(name)).collect();
        let photos: Vec<_> = photos.iter().collect();
        let text = if names.is_empty() { golden.text_only_prompt() } else { golden.prompt() };
        Row { prepared: engine.prepare(&photos, &text, Some(9408)).unwrap(), answers }
    };
    vec![
        row(&["plain_56x84.png"], vec![answer(9, 1)]),
        row(&[], vec![answer(14, 2)]),
        row(&["wide_140x84.png"], vec![answer(1, 3), answer(1, 4)]),
        row(&["small_40x30.png"], vec![answer(1, 5)]),
        row(&[], vec![answer(3, 6), answer(1, 7)]),
    ]
}

/// Log-probabilities of some rows in one sequence; their gradients are added to `sum`.
fn pass(model: &Model, rows: &[Row], sum: &mut Gradients) -> Vec<f32> {
    let pixel_values: Vec<f32> =
        rows.iter().flat_map(|r| r.prepared.pixel_values.clone()).collect();
    let grids: Vec<_> = rows.iter().flat_map(|r| r.prepared.grids.clone()).collect();
    let tower = (!grids.is_empty()).then(|| model.forward_images(&pixel_values, &grids).unwrap());
    let answers: Vec<Vec<&[u32]>> =
        rows.iter().map(|r| r.answers.iter().map(Vec::as_slice).collect()).collect();
    let mut seen = 0;
    let mut groups = Vec::new();
    for (row, answers) in rows.iter().zip(&answers) {
        let n = row.prepared.n_image_tokens;
        let images = tower.as_ref().filter(|_| n > 0).map(|tower| {
            let [_, hidden] = tower.features.dims();
            tower.features.clone().slice([seen..seen + n, 0..hidden])
        });
        seen += n;
        let (prompt, grids) = (&row.prepared.ids[..], &row.prepared.grids[..]);
        groups.push(AnswerGroup { prompt, images, grids, answers });
    }
    let pass = model.forward(&groups, TEMPERATURE, true).unwrap();
    assert_eq!(pass.tokens(), groups.iter().map(AnswerGroup::tokens).sum::<usize>());
    let logps = pollster::block_on(pass.logps()).unwrap();
    // A slope that differs from token to token.
    let slope = |i: usize| -0.3 - 0.1 * (i % 5) as f32;
    let dlogp: Vec<Vec<f32>> =
        logps.iter().map(|l| (0..l.logp.len()).map(slope).collect()).collect();
    let dfeatures = model.backward(pass, &dlogp, sum).unwrap();
    if let (Some(tower), Some(dfeatures)) = (tower, dfeatures) {
        model.backward_images(tower, dfeatures, sum).unwrap();
    }
    logps.into_iter().flat_map(|l| l.logp.into_iter().chain(l.entropy)).collect()
}

fn assert_same(name: &str, got: &BTreeMap<String, Vec<f32>>, want: &BTreeMap<String, Vec<f32>>) {
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    assert!(want.len() > 10, "{name}: {} gradients", want.len());
    for (tensor, want) in want {
        let norm = want.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!(norm > 0.0, "{name}: {tensor} has no gradient");
        let unit = |values: &[f32]| values.iter().map(|v| v / norm).collect::<Vec<_>>();
        assert_close(&format!("{name}: {tensor}"), &unit(&got[tensor]), &unit(want), TOL);
    }
}

/// All weights, those of the tower too.
fn check_weights(name: &'static str, compute: &Compute) {
    let golden = Golden::open(name);
    let mut quiet = |_, _| {};
    let load = Engine::load_as(&golden.folder, compute.clone(), Precision::Trained, &mut quiet);
    let mut engine = pollster::block_on(load).unwrap();
    let rows = rows(&golden, &engine);
    let model = engine.model_mut();
    let mut gradients = |packs: &[&[Row]]| {
        let mut sum = model.weight_gradients(true).unwrap();
        let logps: Vec<f32> = packs.iter().flat_map(|rows| pass(model, rows, &mut sum)).collect();
        let (tensors, mut named) = (sum.into_tensors(), BTreeMap::new());
        let mut each = |name: &str, _: &[usize], values: Vec<f32>| {
            named.insert(name.to_owned(), values);
            Ok::<_, globe_model::Error>(())
        };
        let parameters = model.weight_parameters(true);
        pollster::block_on(parameters.read(|i, _| Ok(tensors[i].clone()), &mut each)).unwrap();
        (logps, named)
    };
    let apart: Vec<&[Row]> = rows.chunks(1).collect();
    let (want_logps, want) = gradients(&apart);
    for packs in [vec![&rows[..]], vec![&rows[..2], &rows[2..]]] {
        let (logps, got) = gradients(&packs);
        assert_close(name, &logps, &want_logps, TOL);
        assert_same(name, &got, &want);
    }
}

#[test]
fn packed_rows_give_the_gradients_of_single_ones() {
    for name in ["tied", "untied", "window56"] {
        check_weights(name, gpu());
    }
    check_weights("tied", &Compute::cpu());
}

#[test]
fn packed_rows_give_an_adapter_the_gradients_of_single_ones() {
    let case = Case::open("tied");
    let mut engine = case.engine(gpu());
    let (config, start) = case.adapter();
    let shape = LoraShape { rank: config.r, scale: config.scaling() as f32 };
    engine.set_lora(shape, &start).unwrap();
    let rows = rows(&case.golden, &engine);
    let mut gradients = |packs: &[&[Row]]| {
        let mut sum = engine.model().lora_gradients();
        for rows in packs {
            pass(engine.model(), rows, &mut sum);
        }
        let tensors = sum.into_tensors();
        let read = engine.model_mut().lora_parameters();
        let modules = pollster::block_on(read.read(Some(&tensors))).unwrap();
        let pairs = modules.into_iter();
        pairs.flat_map(|(m, p)| [(format!("{m} A"), p.a), (format!("{m} B"), p.b)]).collect()
    };
    let apart: Vec<&[Row]> = rows.chunks(1).collect();
    let want: BTreeMap<String, Vec<f32>> = gradients(&apart);
    assert_same("adapter", &gradients(&[&rows]), &want);
}

fn policy(case: &Case, vision: bool) -> ModelPolicy {
    let mut quiet = |_, _| {};
    let load = Engine::load_as(&case.golden.folder, gpu().clone(), Precision::Trained, &mut quiet);
    let engine = Rc::new(RefCell::new(pollster::block_on(load).unwrap()));
    let options = PolicyOptions {
        prompt: case.golden.prompt(),
        max_pixels: Some(9408),
        adamw: AdamWConfig::default(),
        identity: String::new(),
    };
    ModelPolicy::of_weights(engine, options, vision, None).unwrap()
}

/// The policy packs what fits, whatever else is in the batch, and puts results where they belong.
#[test]
fn a_policy_that_packs_says_and_learns_the_same() {
    let case = Case::open("untied");
    let prompt = |name: &str, question: Option<&str>| Prompt {
        id: name.into(),
        image: Arc::from(image(name)),
        question: question.map(str::to_owned),
    };
    let prompts = [
        prompt("plain_56x84.png", None),
        prompt("wide_140x84.png", Some("Where?")),
        prompt("small_40x30.png", None),
    ];
    let answers: Vec<Vec<u32>> =
        [9, 4, 6, 1, 5].into_iter().zip(0..).map(|(n, s)| answer(n, s)).collect();
    // The second prompt has two answers that are read: it stays alone. The third has one token and
    // one that is read.
    let of_prompt = [0, 1, 1, 2, 2];
    let batch: Vec<Sequence> = of_prompt
        .into_iter()
        .zip(&answers)
        .map(|(i, ids)| Sequence { prompt: &prompts[i], ids })
        .collect();
    for vision in [false, true] {
        let mut alone = policy(&case, vision);
        let lengths = alone.prompt_tokens(&prompts.iter().collect::<Vec<_>>()).unwrap();
        assert!(lengths.iter().all(|n| *n > 10), "{lengths:?}");
        let mut packed = policy(&case, vision).with_packing(lengths.iter().sum::<usize>() + 100);
        let (want, got) = (
            alone.logps(&batch, 1.0, Side::Trained).unwrap(),
            packed.logps(&batch, 1.0, Side::Trained).unwrap(),
        );
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            assert_eq!(got.logp.len(), answers[i].len());
            assert_close("logp", &got.logp, &want.logp, TOL);
        }
        let mut norms = Vec::new();
        for policy in [&mut alone, &mut packed] {
            let mut slopes = |logps: &[globe_train::TokenLogps]| {
                Ok(logps.iter().map(|l| vec![-0.1; l.logp.len()]).collect())
            };
            policy.backward(&batch, 1.0, &mut slopes).unwrap();
            norms.push(policy.step(1e-4, 1.0).unwrap().grad_norm);
        }
        assert!((norms[0] - norms[1]).abs() < f64::from(TOL) * norms[0], "{norms:?}");
    }
}
