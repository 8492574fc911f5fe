//! A long training run takes no more memory than its first steps.

use std::cell::RefCell;
use std::rc::Rc;

use globe_engine::Engine;
use globe_policy::{ModelPolicy, PolicyOptions, from_peft};
use globe_tests::{Golden, golden_root, gpu};
use globe_text::Prompt as Wording;
use globe_train::checkpoint::Adapter;
use globe_train::optimiser::AdamWConfig;
use globe_train::{Policy, Prompt, Sampling, Sequence};
use pollster::block_on;

use crate::Alone;
use crate::growth::resident_bytes;

/// Steps before memory is looked at: pipelines are compiled, and the pools of the device find their
/// size, which takes some 70 steps of four lengths in turn.
const WARM_UP: usize = 80;
const STEPS: usize = 200;
/// Steps after which answers repeat.
const SIZES: usize = 4;
/// What the allocators of C and of the driver may keep: 10 KiB a step.
const HOST_GROWTH: u64 = 2 << 20;

#[test]
fn two_hundred_steps_do_not_grow() {
    let _alone = Alone::new();
    let golden = Golden::open("tied");
    let engine = block_on(Engine::load(&golden.folder, gpu().clone(), &mut |_, _| {})).unwrap();
    let adapter = Adapter::open(&golden_root().join("training/tied")).unwrap();
    let options = PolicyOptions {
        prompt: Wording { system: None, user: "Where?".into() },
        max_pixels: None,
        adamw: AdamWConfig::default(),
        identity: String::new(),
    };
    let (engine, shape) = (Rc::new(RefCell::new(engine)), adapter.config.clone());
    let mut policy = ModelPolicy::new(engine, options, shape, &from_peft(adapter)).unwrap();
    let image = std::fs::read(golden_root().join("images/plain_56x84.png")).unwrap();
    let prompt = Prompt { id: "photo".into(), image: image.into(), question: None };
    let prompt = std::slice::from_ref(&prompt);
    let mut step = |i: usize| {
        let max_tokens = 2 + i % SIZES;
        let sampling =
            Sampling { group_size: 2, max_tokens, temperature: 1.0, top_p: 1.0, top_k: 0 };
        let seed = (i % SIZES) as u64;
        let answers = policy.rollout(prompt, &[seed], &sampling).unwrap().remove(0);
        let batch: Vec<_> = answers
            .iter()
            .map(|answer| Sequence { prompt: &prompt[0], ids: &answer.ids })
            .collect();
        // The first answer is to become likelier, the second less so.
        let mut gradient = |logps: &[globe_train::TokenLogps]| {
            let signs = [-1e-3, 1e-3].into_iter().zip(logps);
            Ok(signs.map(|(sign, answer)| vec![sign; answer.logp.len()]).collect())
        };
        policy.backward(&batch, 1.0, &mut gradient).unwrap();
        // A step of no length does all the work, and answers stay as long as they were.
        assert!(policy.step(0.0, 1.0).unwrap().applied, "step {i}");
    };
    (0..WARM_UP).for_each(&mut step);
    let (device, host) = (gpu().memory(), resident_bytes());
    for i in WARM_UP..WARM_UP + STEPS {
        step(i);
        if (i + 1).is_multiple_of(SIZES) {
            let now = gpu().memory();
            assert!(now.in_use <= device.in_use, "after {} steps: {now:?}, was {device:?}", i + 1);
            assert!(now.reserved <= device.reserved, "after {} steps: {now:?}", i + 1);
        }
    }
    if let Some((before, after)) = host.zip(resident_bytes()) {
        let grown = after.saturating_sub(before);
        println!("{grown} bytes of host memory more after {STEPS} steps");
        assert!(grown <= HOST_GROWTH, "the process grew from {before} to {after} bytes");
    }
}
