//! Plans against what the device counts.

use globe_engine::{Demand, Engine, PROMPT_BUCKET, plan};
use globe_model::{Batch, ImageGrid, Model, Precision, WeightPlan, Workload};
use globe_ops::{SampleOptions, read_f32};
use globe_tests::{GOLDENS, Golden, gpu};
use pollster::block_on;

use crate::{Alone, IMAGE, config};

/// Buffers start at multiples of 256 bytes at most, and some are a word where a plan has none.
const ROUNDING: u64 = 16 << 10;

#[track_caller]
fn assert_planned(what: &str, got: u64, planned: u64) {
    let margin = planned / 100 + ROUNDING;
    assert!(got.abs_diff(planned) <= margin, "{what}: {got} bytes, planned {planned}");
}

#[test]
fn weights_and_cache_of_every_golden_are_as_planned() {
    let alone = Alone::new();
    for name in GOLDENS {
        let golden = Golden::open(name);
        let photos = golden.photos();
        let largest = photos.iter().map(|photo| [photo.height, photo.width]);
        let demand = Demand {
            prompt: golden.prompt(),
            photo: largest.max_by_key(|[height, width]| height * width),
            photos: photos.len(),
            answers: 3,
            max_tokens: 40,
            ..Demand::default()
        };
        for precision in [Precision::Stored, Precision::Reference] {
            let what = format!("{name}, {precision:?}");
            let dense = precision == Precision::Reference;
            let planned = block_on(plan(&golden.folder, dense, &demand)).unwrap();
            let (folder, mut quiet) = (&golden.folder, |_, _| {});
            let load = Engine::load_as(folder, gpu().clone(), precision, &mut quiet);
            let engine = block_on(load).unwrap();
            let weights = alone.in_use();
            assert_planned(&format!("weights of {what}"), weights, planned.weights);
            assert_eq!(engine.model().weights().total(), planned.weights, "{what}");

            let photos: Vec<_> = photos.iter().collect();
            let prepared = engine.prepare(&photos, &golden.prompt(), None).unwrap();
            let room = if dense { 1 } else { PROMPT_BUCKET };
            let prompt = prepared.ids.len().next_multiple_of(room);
            let cache = engine.model().cache(prompt, 40, 3);
            let cached = alone.in_use() - weights;
            assert!(cache.rows_after(prepared.ids.len()) >= 3);
            // The plan takes all photos to be as large as the largest.
            assert!(cached <= planned.cache + ROUNDING, "{what}: {cached}, {}", planned.cache);
            let exact = engine.plan(&prepared, 40, false, 3).cache;
            assert_planned(&format!("cache of {what}"), cached, exact);
        }
    }
}

/// One photo, one prompt and a batch: what the driver gave is within the plan, and the plan is not
/// far above it.
#[test]
fn a_whole_answer_stays_within_its_plan() {
    let alone = Alone::new();
    let compute = gpu();
    for (bits, side, prompt, answers, max_tokens) in [(4, 32, 700, 4, 60), (8, 16, 150, 9, 300)] {
        let planned = WeightPlan::random(&config(), bits, 8).unwrap();
        let work = Workload {
            patches: side * side,
            prompt,
            answers,
            max_tokens,
            penalties: true,
            ..Workload::default()
        };
        let planned = planned.plan(&config(), &work);
        compute.free_unused().unwrap();
        let before = compute.memory().reserved;
        let mut reserved = 0;
        let mut look = || reserved = reserved.max(compute.memory().reserved - before);

        let model = block_on(Model::random(config(), bits, 8, compute, &mut |_, _| {})).unwrap();
        assert_planned("weights", alone.in_use(), planned.weights);
        look();
        let grid = ImageGrid([1, side, side]);
        let features = model.encode_images(vec![0.1; side * side * 1176], &[grid]).unwrap();
        block_on(read_f32(features.clone())).unwrap();
        look();
        let with_features = alone.in_use();
        assert_planned("features", with_features - planned.weights, planned.features);
        let mut cache = model.cache(prompt, max_tokens, answers);
        assert_planned("cache", alone.in_use() - with_features, planned.cache);
        let mut ids: Vec<u32> = (0..prompt as u32).collect();
        ids[10..10 + side * side / 4].fill(IMAGE);
        let logits = model.prefill(&ids, Some(features), &[grid], &mut cache).unwrap();
        look();
        let samples: Vec<u32> = (0..answers as u32).collect();
        let options = SampleOptions { repetition: 1.1, ..SampleOptions::default() };
        let mut batch = Batch::start(&cache, &logits, &samples, Some(&ids), options, &[]).unwrap();
        for _ in 0..3 {
            batch.step(&model, &cache).unwrap();
        }
        block_on(batch.read()).unwrap();
        look();
        let need = planned.device_bytes();
        assert!(reserved <= need, "the driver gave {reserved}, planned {need}: {planned}");
        assert!(need <= 2 * reserved, "the driver gave {reserved}, planned {need}: {planned}");
    }
}
