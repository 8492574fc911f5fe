//! The cache and the recorded steps of one photo serve the next.

use globe_engine::{
    Cancel, Demand, Engine, Event, Generation, LoadOptions, PROMPT_BUCKET, Prepared, Sampling,
};
use globe_image::Photo;
use globe_model::{Batch, Cache, Model};
use globe_ops::{Replay, SampleOptions, adapters, read_f32, recording_count, tensor_i32};
use globe_tests::{Golden, gpu};
use globe_text::Prompt;
use pollster::block_on;

use crate::{Alone, config, memory};

const TOKENS: usize = 12;

fn engine(golden: &Golden, budget: Option<u64>) -> Engine {
    let prompt = Prompt { system: None, user: "Where?".into() };
    let demand = Demand { prompt, photo: Some([28, 28]), max_tokens: 1, ..Demand::default() };
    let options = LoadOptions { budget, demand, ..LoadOptions::default() };
    block_on(Engine::load_with(&golden.folder, gpu().clone(), &options, &mut |_, _| {})).unwrap()
}

/// A question about a grey photo.
fn prepared(engine: &Engine, grey: u8, user: &str) -> Prepared {
    let photo = Photo::from_rgb(84, 56, vec![grey; 84 * 56 * 3]).unwrap();
    let prompt = Prompt { system: None, user: user.into() };
    engine.prepare(&[&photo], &prompt, None).unwrap()
}

/// Ids of `answers` answers to it.
fn ids(engine: &Engine, grey: u8, user: &str, answers: usize, max_tokens: usize) -> Vec<Vec<u32>> {
    let mut prepared = prepared(engine, grey, user);
    let features = engine.encode(&mut prepared).unwrap();
    let mut session = engine.prefill_for(&prepared, features, max_tokens, answers).unwrap();
    let sampling = Sampling { temperature: 1.0, repetition_penalty: 1.1, ..Sampling::default() };
    let generation = Generation { sampling, seed: 5, sample: 0, max_tokens, ignore_stop: true };
    let (cancel, mut quiet) = (Cancel::default(), |_: Event| {});
    let all = engine.generate_all(&mut session, &generation, answers as u32, &cancel, &mut quiet);
    block_on(all).unwrap().into_iter().map(|answer| answer.ids).collect()
}

/// Steps recorded while `run` ran, and what it gave.
fn recorded<T>(run: impl FnOnce() -> T) -> (u64, T) {
    let before = recording_count();
    let result = run();
    (recording_count() - before, result)
}

#[test]
fn the_next_photo_of_the_same_bucket_records_nothing() {
    let _alone = Alone::new();
    let golden = Golden::open("window56");
    let used = engine(&golden, None);
    let long = "Where was this taken? ".repeat(3);
    assert_eq!(recorded(|| ids(&used, 10, "Where?", 3, TOKENS)).0, 1);
    for (grey, user) in [(200, "Where?"), (90, &*long), (10, "Where?")] {
        let (recordings, got) = recorded(|| ids(&used, grey, user, 3, TOKENS));
        assert_eq!(recordings, 0, "{grey} {user}");
        assert_eq!(got, ids(&engine(&golden, None), grey, user, 3, TOKENS), "{grey} {user}");
    }
    // Other sizes are other steps; a prompt beyond the bucket as well.
    assert_eq!(recorded(|| ids(&used, 10, "Where?", 2, TOKENS)).0, 1);
    assert_eq!(recorded(|| ids(&used, 10, "Where?", 2, TOKENS + 1)).0, 1);
    let beyond = "Where?".repeat(PROMPT_BUCKET);
    assert_eq!(recorded(|| ids(&used, 10, &beyond, 2, TOKENS + 1)).0, 1);
    assert_eq!(recorded(|| ids(&used, 77, &beyond, 2, TOKENS + 1)).0, 0);
}

#[test]
fn what_is_kept_is_given_back_on_request_and_where_a_budget_is_short() {
    let alone = Alone::new();
    let golden = Golden::open("window56");
    let free = engine(&golden, None);
    let weights = alone.in_use();
    ids(&free, 10, "Where?", 3, TOKENS);
    assert!(alone.in_use() > weights, "a cache is kept");
    free.release_kept().unwrap();
    assert_eq!(alone.in_use(), weights);
    assert_eq!(recorded(|| ids(&free, 10, "Where?", 3, TOKENS)).0, 1);

    // The next photo is encoded beside what is kept, or after it is dropped.
    let prepared = prepared(&free, 10, "Where?");
    let kept = free.plan(&prepared, TOKENS, true, 3);
    let enough = free.plan(&prepared, 0, false, 1).encoding_bytes(kept.cache + kept.decode);
    drop(free);
    for (budget, recordings) in [(enough - 1, 1), (enough, 0)] {
        let answering = engine(&golden, Some(budget));
        ids(&answering, 10, "Where?", 3, TOKENS);
        let again = recorded(|| ids(&answering, 20, "Where?", 3, TOKENS)).0;
        assert_eq!(again, recordings, "{budget} bytes");
    }
}

/// Greedy tokens of recorded steps, however they are replayed, and of steps that were launched one by one.
#[test]
fn recorded_steps_draw_the_tokens_of_launched_ones() {
    let _alone = Alone::new();
    let adapters = block_on(adapters());
    let adapter = adapters.iter().find(|adapter| adapter.name == gpu().name).unwrap();
    assert!(Replay::choices(adapter).contains(&Replay::Wgpu));
    for replay in Replay::choices(adapter) {
        let compute = gpu().clone().with_replay(*replay);
        let model = block_on(Model::random(config(), 4, 8, &compute, &mut |_, _| {})).unwrap();
        let ids: Vec<u32> = (100..140).collect();
        let mut cache = model.cache(ids.len(), TOKENS, 1);
        let logits = model.prefill(&ids, None, &[], &mut cache).unwrap();
        let options = SampleOptions::default();
        let mut batch = Batch::start(&cache, &logits, &[0], None, options, &[]).unwrap();
        batch.step(&model, &cache).unwrap();
        batch.steps(TOKENS - 2, &model, &cache).unwrap();
        assert_eq!(batch.is_recorded(), *replay == Replay::Vulkan);
        assert!(batch.raw_loop().is_some(), "all launches are our own");
        let drawn = block_on(batch.read()).unwrap();
        let recorded: Vec<u32> = (0..TOKENS).map(|step| drawn.token(step, 0).unwrap().0).collect();
        assert_eq!(recorded, launched(&model, &ids, &mut cache), "{replay:?}");
    }
}

/// No buffer is made for a step, whoever replays it: what the device holds stays as it is from one to the next.
#[test]
fn a_recorded_step_takes_no_memory_however_it_is_replayed() {
    const STEPS: usize = 50;
    let _alone = Alone::new();
    let adapters = block_on(adapters());
    let adapter = adapters.iter().find(|adapter| adapter.name == gpu().name).unwrap();
    for replay in Replay::choices(adapter) {
        let compute = gpu().clone().with_replay(*replay);
        let model = block_on(Model::random(config(), 4, 8, &compute, &mut |_, _| {})).unwrap();
        let ids: Vec<u32> = (100..140).collect();
        let mut cache = model.cache(ids.len(), STEPS + 4, 3);
        let logits = model.prefill(&ids, None, &[], &mut cache).unwrap();
        let options = SampleOptions { temperature: 0.7, ..SampleOptions::default() };
        let mut batch = Batch::start(&cache, &logits, &[0, 1, 2], None, options, &[]).unwrap();
        batch.step(&model, &cache).unwrap(); // records
        batch.step(&model, &cache).unwrap();
        let before = memory();
        for step in 0..STEPS {
            batch.step(&model, &cache).unwrap();
            let now = gpu().memory(); // while the step is under way
            let held = [now.in_use, now.reserved];
            assert_eq!(held, [before.in_use, before.reserved], "{replay:?}, step {step}");
        }
        let after = memory();
        assert_eq!([after.in_use, after.reserved], [before.in_use, before.reserved], "{replay:?}");
        assert_eq!(block_on(batch.read()).unwrap().steps, STEPS + 3);
    }
}

/// The most likely tokens after `ids`, chosen on the host.
fn launched(model: &Model, ids: &[u32], cache: &mut Cache) -> Vec<u32> {
    let mut launched = Vec::new();
    let mut logits = model.prefill(ids, None, &[], cache).unwrap();
    loop {
        let values = block_on(read_f32(logits)).unwrap();
        let best = (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap();
        launched.push(best as u32);
        if launched.len() == TOKENS {
            return launched;
        }
        let id = tensor_i32(vec![best as i32], [1], &gpu().device);
        logits = model.step(id, cache).unwrap();
    }
}
