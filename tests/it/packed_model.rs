//! Quantized models: kernels against their own dequantized weights, and what quantization costs.

use globe_engine::{
    Cancel, CompareOptions, Demand, Engine, Event, Generation, LoadOptions, PROMPT_BUCKET,
    Sampling, compare,
};
use globe_format::Folder;
use globe_model::{Batch, Config, Model, Precision};
use globe_ops::{Compute, KvFormat, SampleOptions, Variant};
use globe_tests::{GOLDENS, Golden, assert_close, assert_close_scaled, gpu, variants};
use pollster::block_on;
use serde_json::json;
use tempfile::TempDir;

use crate::convert::converted;

/// Of the largest logit: the same weights, summed in another order.
pub(crate) const LOGIT_TOL: f32 = 1e-4;
/// Likewise where factors of products have 16 bits, 11 of them mantissa, in every layer.
const ROUNDED_TOL: f32 = 1e-2;
/// The same where inputs have 8 bits.
const DOT_TOL: f32 = 1e-1;

/// Which of them holds for these kernels.
pub(crate) fn tolerance(variant: Variant) -> f32 {
    match variant {
        Variant::PackedDot => DOT_TOL,
        _ if variant.rounds() => ROUNDED_TOL,
        _ => LOGIT_TOL,
    }
}

fn packed(golden: &str, bits: u32) -> TempDir {
    converted(golden, &format!("--bits {bits} --vision-bits {} --quiet", bits.max(8)))
}

fn load(folder: &TempDir, compute: &Compute, precision: Precision) -> Engine {
    let folder = Folder::open(folder.path()).unwrap();
    block_on(Engine::load_as(&folder, compute.clone(), precision, &mut |_, _| {})).unwrap()
}

/// Logits after the prompt and 24 greedy tokens.
fn answer(engine: &Engine, golden: &Golden) -> (Vec<f32>, Vec<u32>) {
    let photos = golden.photos();
    let photos: Vec<_> = photos.iter().collect();
    let mut prepared = engine.prepare(&photos, &golden.prompt(), None).unwrap();
    let features = engine.encode(&mut prepared).unwrap();
    let mut session = engine.prefill(&prepared, features, 24).unwrap();
    let logits = block_on(session.logits()).unwrap();
    let sampling = Sampling::greedy();
    let generation = Generation { sampling, seed: 0, sample: 0, max_tokens: 24, ignore_stop: true };
    let (cancel, mut on_event) = (Cancel::default(), |_: Event| {});
    let answer = engine.generate(&mut session, &generation, &cancel, &mut on_event);
    (logits, block_on(answer).unwrap().ids)
}

#[test]
fn the_kernels_add_no_error_of_their_own() {
    for (name, bits) in [("untied", 4), ("tied", 4), ("window112", 8), ("head128", 16), ("deep", 4)]
    {
        let (golden, folder) = (Golden::open(name), packed(name, bits));
        let (expected, ids) = answer(&load(&folder, &Compute::cpu(), Precision::Stored), &golden);
        for &variant in variants() {
            let compute = gpu().clone().with_variant(variant);
            let what = format!("{name} in {bits} bits by {variant:?}");
            let got = answer(&load(&folder, &compute, Precision::Stored), &golden);
            assert_close_scaled(&what, &got.0, &expected, tolerance(variant));
            if !variant.rounds() {
                assert_eq!(got.1, ids, "{what}");
            }
        }
    }
}

#[test]
fn eight_bits_choose_nearly_the_same_tokens() {
    let (mut same, mut all) = (0.0, 0.0);
    for name in GOLDENS {
        let golden = Golden::open(name);
        let folder = packed(name, 8);
        let a = block_on(Engine::load(&golden.folder, gpu().clone(), &mut |_, _| {})).unwrap();
        let b = load(&folder, gpu(), Precision::Stored);
        let options = CompareOptions { prompt: golden.prompt(), max_tokens: 32, max_pixels: None };
        let photo = &golden.photos()[0];
        let found = block_on(compare(&a, &b, photo, &options, &Cancel::default())).unwrap();
        assert!(found.layer_cosine.iter().all(|c| *c > 0.99), "{name}: {:?}", found.layer_cosine);
        same += found.top1_agreement * found.tokens as f64;
        all += found.tokens as f64;
    }
    // Measured: 215 of 224. Random weights leave near ties, which the rounding of 8 bits (0.5 % of a
    // weight, searched scales) turns; LOG.md has the figures.
    assert!(same / all >= 0.95, "{same} of {all} tokens agree");
}

#[test]
fn a_model_equals_itself() {
    let golden = Golden::open("tied");
    let a = block_on(Engine::load(&golden.folder, gpu().clone(), &mut |_, _| {})).unwrap();
    let options = CompareOptions { prompt: golden.prompt(), max_tokens: 8, max_pixels: None };
    let photo = &golden.photos()[0];
    let found = block_on(compare(&a, &a, photo, &options, &Cancel::default())).unwrap();
    assert_eq!((found.tokens, found.top1_agreement, found.largest_logit_error), (8, 1.0, 0.0));
}

/// Few dispatches are what keeps a tab and a driver fast: 8 for each layer, and 10 besides; 9 beyond 32 rows, where
/// norms are kernels of their own.
#[test]
fn a_step_is_few_dispatches_however_many_layers_there_are() {
    const LAYERS: usize = 14;
    let json = json!({
        "model_type": "qwen2_5_vl", "vocab_size": 5000, "hidden_size": 128, "intermediate_size": 416,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
        "tie_word_embeddings": false, "image_token_id": 4999, "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "max_position_embeddings": 8000,
        "rope_scaling": { "type": "mrope", "mrope_section": [4, 6, 6] },
        "vision_config": {
            "depth": 1, "hidden_size": 64, "num_heads": 4, "intermediate_size": 96,
            "out_hidden_size": 128, "fullatt_block_indexes": [0]
        }
    });
    let config = Config::parse(json.to_string().as_bytes()).unwrap();
    for variant in variants() {
        let compute = gpu().clone().with_variant(*variant);
        let mut quiet = |_, _| {};
        let model = block_on(Model::random(config.clone(), 4, 8, &compute, &mut quiet)).unwrap();
        for rows in [1, 2, 9, 16, 32, 33] {
            let ids: Vec<u32> = (100..120).collect();
            let mut cache = model.cache(ids.len(), 4, rows);
            let logits = model.prefill(&ids, None, &[], &mut cache).unwrap();
            let samples: Vec<u32> = (0..rows as u32).collect();
            let options = SampleOptions::default();
            let mut batch = Batch::start(&cache, &logits, &samples, None, options, &[]).unwrap();
            while batch.drawn() < 4 {
                batch.step(&model, &cache).unwrap();
            }
            let n = batch.n_dispatches().unwrap();
            let each = if rows <= 32 { 8 } else { 9 };
            assert!(n <= each * LAYERS + 10, "{variant:?}, {rows} rows: {n} dispatches");
        }
    }
}

#[test]
fn answers_do_not_depend_on_each_other() {
    let golden = Golden::open("head128");
    let engine = block_on(Engine::load(&golden.folder, gpu().clone(), &mut |_, _| {})).unwrap();
    let model = engine.model();
    let prepared = engine.prepare(&[], &golden.text_only_prompt(), None).unwrap();
    let draw = |samples: &[u32]| {
        let (prompt, tail) = (prepared.ids.len(), 20);
        let mut cache = model.cache(prompt, tail, samples.len());
        let logits = model.prefill(&prepared.ids, None, &[], &mut cache).unwrap();
        let options = SampleOptions { temperature: 1.0, seed: 3, ..SampleOptions::default() };
        let mut batch = Batch::start(&cache, &logits, samples, None, options, &[]).unwrap();
        while batch.drawn() < tail {
            batch.step(model, &cache).unwrap();
        }
        assert!(batch.step(model, &cache).is_err(), "the tails are full");
        let drawn = block_on(batch.read()).unwrap();
        let row =
            |row: usize| (0..tail).map(|t| drawn.token(t, row).unwrap().0).collect::<Vec<_>>();
        (0..samples.len()).map(row).collect::<Vec<_>>()
    };
    let together = draw(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
    for sample in [0, 4, 8] {
        assert_eq!(draw(&[sample])[0], together[sample as usize], "sample {sample}");
    }
    assert_ne!(together[0], together[1]);
    assert!(
        Batch::start(
            &model.cache(0, 1, 1),
            &globe_ops::zeros([1, 4], &gpu().device),
            &[0, 1],
            None,
            SampleOptions::default(),
            &[]
        )
        .is_err()
    );
}

/// Half the bytes for keys and values, and logits that are close; a typed error on the CPU path and with
/// the reference kernels.
#[test]
fn a_cache_of_16_bits_is_half_as_large_and_close() {
    let golden = Golden::open("head128");
    let load = |compute: &Compute, precision, kv| {
        let demand = Demand { kv, ..Demand::default() };
        let options = LoadOptions { precision, demand, ..LoadOptions::default() };
        let (folder, compute) = (&golden.folder, compute.clone());
        block_on(Engine::load_with(folder, compute, &options, &mut |_, _| {}))
    };
    let [full, half] =
        [KvFormat::F32, KvFormat::F16].map(|kv| load(gpu(), Precision::Stored, kv).unwrap());
    let prepared = full.prepare(&[], &golden.text_only_prompt(), None).unwrap();
    let room = prepared.ids.len().next_multiple_of(PROMPT_BUCKET) + 20;
    let angles = 4 * room * full.model().config().text.head_dim();
    let keys = |engine: &Engine| engine.plan(&prepared, 20, false, 4).cache - angles as u64;
    assert_eq!(2 * keys(&half), keys(&full));

    let (expected, got) = (answer(&full, &golden).0, answer(&half, &golden).0);
    assert_ne!(got, expected);
    assert_close("logits", &got, &expected, 2e-3);

    for (compute, precision) in
        [(&Compute::cpu(), Precision::Stored), (gpu(), Precision::Reference)]
    {
        assert!(load(compute, precision, KvFormat::F16).is_err());
    }
}
