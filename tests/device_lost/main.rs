//! A device that is lost in the middle of an answer is an error, not a panic. A binary of its own:
//! the device does not come back within a process.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use globe_engine::{Cancel, Engine, Error, Event, Generation, Sampling};
use globe_tests::{Golden, gpu};

#[test]
fn a_lost_device_is_a_typed_error_with_a_remedy() {
    let golden = Golden::open("untied");
    let compute = gpu();
    let engine =
        pollster::block_on(Engine::load(&golden.folder, compute.clone(), &mut |_, _| {})).unwrap();
    let prepared = engine.prepare(&[], &golden.text_only_prompt(), None).unwrap();
    let mut session = engine.prefill(&prepared, None, 32).unwrap();
    pollster::block_on(session.logits()).unwrap();

    let generation = Generation {
        sampling: Sampling::greedy(),
        seed: 0,
        sample: 0,
        max_tokens: 32,
        ignore_stop: true,
    };
    let mut n_tokens = 0;
    let mut on_event = |event: Event| {
        if matches!(event, Event::Token { .. }) {
            n_tokens += 1;
            if n_tokens == 3 {
                compute.destroy();
            }
        }
    };
    let cancel = Cancel::default();
    let answer = engine.generate(&mut session, &generation, &cancel, &mut on_event);
    let error = pollster::block_on(answer).unwrap_err();
    assert!(matches!(error, Error::Ops(globe_ops::Error::Device { .. })), "{error}");
    assert!(error.to_string().contains("choose another --device"), "{error}");
    // Tokens that had been read before are still handed out.
    assert!((3..32).contains(&n_tokens), "{n_tokens} tokens; the answer ends soon after the loss");
}
