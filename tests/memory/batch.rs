//! More answers than there is room for.

use globe_engine::{
    Cancel, Engine, Error, Event, Generation, LoadOptions, Prepared, Sampling, StopReason,
};
use globe_tests::{Golden, gpu};
use pollster::block_on;

use crate::Alone;

const TOKENS: usize = 300;

fn engine(golden: &Golden, budget: Option<u64>, max_binding_bytes: u64) -> Engine {
    let compute = gpu().clone().limited_to(max_binding_bytes);
    let options = LoadOptions { budget, ..LoadOptions::default() };
    block_on(Engine::load_with(&golden.folder, compute, &options, &mut |_, _| {})).unwrap()
}

fn prepared(engine: &Engine, golden: &Golden) -> Prepared {
    engine.prepare(&[&golden.photos()[0]], &golden.prompt(), None).unwrap()
}

/// A prompt without a photo, and an engine with no budget.
fn text_only() -> (Engine, Prepared) {
    let golden = Golden::open("window56");
    let engine = engine(&golden, None, gpu().max_binding_bytes);
    let prompt = engine.prepare(&[], &golden.text_only_prompt(), None).unwrap();
    (engine, prompt)
}

#[test]
fn as_many_answers_as_the_budget_holds_are_drawn_at_once() {
    let _alone = Alone::new();
    let golden = Golden::open("window56");
    let free = engine(&golden, None, gpu().max_binding_bytes);
    let prompt = prepared(&free, &golden);
    assert_eq!(free.answers_at_once(&prompt, TOKENS, false, 64, true).unwrap(), 64);
    let need = |rows| free.plan(&prompt, TOKENS, false, rows).device_bytes();

    // The folder's own demand, the largest photo and 512 tokens, fits as well.
    let tight = engine(&golden, Some(need(20)), gpu().max_binding_bytes);
    let at_once = |wanted, forced| tight.answers_at_once(&prompt, TOKENS, false, wanted, forced);
    assert_eq!(at_once(64, false).unwrap(), 20);
    assert_eq!(at_once(7, true).unwrap(), 7);
    match at_once(64, true) {
        Err(Error::BatchBeyondPlan { wanted: 64, fits: 20, need: n, budget: Some(bytes) }) => {
            assert_eq!((n, bytes), (need(64), need(20)));
        }
        other => panic!("{other:?}"),
    }
    let too_long = tight.answers_at_once(&prompt, 200_000, false, 1, false);
    assert!(matches!(too_long, Err(Error::ContextTooLong { .. })), "{too_long:?}");
    let budget = free.plan(&prompt, 3_900, false, 1).device_bytes() - 1;
    let tight = engine(&golden, Some(budget), gpu().max_binding_bytes);
    let too_large = tight.answers_at_once(&prompt, 3_900, false, 1, false);
    let over = matches!(too_large, Err(Error::Model(globe_model::Error::OverBudget { .. })));
    assert!(over, "{too_large:?}");
}

/// A stop or an early end leaves reads under way; the next prompt uses their buffers.
#[test]
fn answers_that_end_early_leave_the_device_usable() {
    let _alone = Alone::new();
    let (engine, prompt) = text_only();
    let whole = |seed| Generation {
        sampling: Sampling::default(),
        seed,
        sample: 0,
        max_tokens: 40,
        ignore_stop: true,
    };
    let mut session = engine.prefill_for(&prompt, None, 40, 2).unwrap();
    for seed in 0..20 {
        let cancel = Cancel::default();
        let mut stop = |_: Event| cancel.cancel();
        let whole = whole(seed);
        let stopped = engine.generate_all(&mut session, &whole, 2, &cancel, &mut stop);
        assert!(matches!(block_on(stopped), Err(Error::Cancelled)), "seed {seed}");
    }
    let (cancel, mut quiet) = (Cancel::default(), |_: Event| {});
    let whole = whole(1);
    let answers = engine.generate_all(&mut session, &whole, 2, &cancel, &mut quiet);
    assert!(block_on(answers).unwrap().iter().all(|answer| answer.ids.len() == 40));
}

/// Answers that wait for room begin before the last tokens of those before have arrived, and are the same as alone.
#[test]
fn answers_in_turn_are_those_of_a_call_each() {
    let _alone = Alone::new();
    let (engine, prompt) = text_only();
    let mut session = engine.prefill_for(&prompt, None, 70, 2).unwrap();
    let sampling = Sampling { temperature: 1.5, ..Sampling::default() };
    for (max_tokens, ignore_stop) in [(1, true), (9, true), (70, true), (70, false)] {
        let from = |sample| Generation { sampling, seed: 3, sample, max_tokens, ignore_stop };
        let mut events = Vec::new();
        let mut note = |event: Event| match event {
            Event::Token { sample, .. } => events.push((sample, false)),
            Event::Ended { sample, .. } => events.push((sample, true)),
            _ => {}
        };
        let cancel = Cancel::default();
        let all = block_on(engine.generate_all(&mut session, &from(4), 5, &cancel, &mut note));
        let all = all.unwrap();
        for (generated, sample) in all.iter().zip(4..) {
            let (one, mut quiet) = (from(sample), |_: Event| {});
            let alone = engine.generate(&mut session, &one, &cancel, &mut quiet);
            let alone = block_on(alone).unwrap();
            assert_eq!(generated.ids, alone.ids, "answer {sample} of {max_tokens} tokens");
            let shown = events.iter().filter(|event| **event == (sample, false)).count();
            let ended = usize::from(generated.stop == StopReason::EndOfText);
            assert_eq!(shown + ended, generated.ids.len());
        }
        // Two at once, so every other answer ends last of its part, and nothing of the next comes before.
        let ends: Vec<u32> = events.iter().filter(|e| e.1).map(|e| e.0).collect();
        assert_eq!(ends, [4, 5, 6, 7, 8]);
        let parts: Vec<u32> = events.iter().map(|(sample, _)| (sample - 4) / 2).collect();
        assert!(parts.is_sorted(), "{parts:?}");
    }
}

#[test]
fn a_cache_must_fit_one_binding() {
    let _alone = Alone::new();
    let golden = Golden::open("window56");
    let free = engine(&golden, None, gpu().max_binding_bytes);
    let prompt = prepared(&free, &golden);
    let limit = free.plan(&prompt, TOKENS, false, 10).largest_buffer;
    let engine = engine(&golden, None, limit);
    assert_eq!(engine.answers_at_once(&prompt, TOKENS, false, 64, false).unwrap(), 10);
    let refused = engine.answers_at_once(&prompt, TOKENS, false, 64, true);
    let beyond = matches!(refused, Err(Error::BatchBeyondPlan { fits: 10, budget: None, .. }));
    assert!(beyond, "{refused:?}");
}
