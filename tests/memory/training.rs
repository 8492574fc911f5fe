//! What training takes is what was planned, and a long run takes no more than its first steps.

use std::cell::RefCell;
use std::rc::Rc;

use globe_engine::Engine;
use globe_model::{
    AnswerGroup, LoraShape, Model, Qwen2_5Vl, TrainingPlan, TrainingWorkload, WeightPlan,
};
use globe_ops::{MemoryWatch, zeros};
use globe_policy::{ModelPolicy, PolicyOptions, fresh, from_peft};
use globe_tests::{Golden, golden_root, gpu};
use globe_text::Prompt as Wording;
use globe_train::assemble::adapter_config;
use globe_train::checkpoint::Adapter;
use globe_train::config::LoraSection;
use globe_train::optimiser::AdamWConfig;
use globe_train::{Policy, Prompt, Sampling, Sequence};
use pollster::block_on;

use crate::growth::resident_bytes;
use crate::{Alone, config, memory};

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
    let (device, host) = (memory(), resident_bytes());
    for i in WARM_UP..WARM_UP + STEPS {
        step(i);
        if (i + 1).is_multiple_of(SIZES) {
            let now = memory();
            assert_eq!(now.in_use, device.in_use, "after {} steps", i + 1);
            assert!(now.reserved <= device.reserved, "after {} steps: {now:?}", i + 1);
        }
    }
    if let Some((before, after)) = host.zip(resident_bytes()) {
        let grown = after.saturating_sub(before);
        println!("{grown} bytes of host memory more after {STEPS} steps");
        assert!(grown <= HOST_GROWTH, "the process grew from {before} to {after} bytes");
    }
}

/// A pass with an adapter of which some activations are kept, all, or none.
#[test]
fn a_training_pass_takes_what_was_planned() {
    let alone = Alone::new();
    let (config, compute) = (config(), gpu());
    let mut quiet = |_, _| {};
    let load = Model::random(config.clone(), 4, 8, compute, &mut quiet);
    let mut model = block_on(load).unwrap();
    // Of a layer's first fused matrix two of three modules.
    let targets = ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    let targets = targets.map(String::from).to_vec();
    let rank = 24;
    let lora = LoraSection { rank, targets: targets.clone(), ..LoraSection::default() };
    let is_adapted = |module: &str| targets.iter().any(|target| module.ends_with(target));
    let modules = fresh(&model, &adapter_config(&lora, ""), &targets, 0);
    let mut set = model.lora_set(LoraShape { rank, scale: 1.0 }, &modules, compute).unwrap();
    model.swap_lora(&mut set).unwrap();
    let planned = Qwen2_5Vl::adapter_plan(&config, rank, is_adapted);
    let weights = WeightPlan::random(&config, 4, 8).unwrap().total();
    let shapes = model.lora_parameters().shapes();
    let values: usize = shapes.iter().map(|[rows, cols]| rows * cols).sum();
    assert_eq!(planned.values, values);
    let masks = model.lora_parameters().masks();
    let masked = masks.iter().flatten().map(|mask| mask.dims().iter().product::<usize>());
    assert_eq!(planned.masks, masked.sum::<usize>());
    let means: Vec<_> = (0..2).flat_map(|_| &shapes).map(|s| zeros(*s, &compute.device)).collect();

    for (prompt, answers, length) in [(40, 4, 30), (500, 4, 60), (60, 12, 50)] {
        let id = |i: usize| (i * 7919 % 19_000) as u32;
        let prompt: Vec<u32> = (0..prompt).map(id).collect();
        let answers: Vec<Vec<u32>> =
            (1..=answers).map(|a| (0..length).map(|i| id(a * 100 + i)).collect()).collect();
        let dlogp: Vec<Vec<f32>> = answers.iter().map(|a| vec![1e-3; a.len()]).collect();
        let answers: Vec<&[u32]> = answers.iter().map(Vec::as_slice).collect();
        let group = AnswerGroup { prompt: &prompt, images: None, grids: &[], answers: &answers };
        let watch = MemoryWatch::begin();
        let pass = model.forward(&[group], 1.0, true).unwrap();
        let tokens = pass.tokens();
        let mut sum = model.lora_gradients();
        model.backward(pass, &dlogp, &mut sum).unwrap();
        let got = watch.peak() - alone.before.in_use;
        drop((watch, sum));

        let targets = dlogp.iter().map(Vec::len).sum();
        let adapter_width = planned.width;
        let work = TrainingWorkload { sequences: 1, tokens, targets, adapter_width };
        let pass = TrainingPlan::new(&config, &work);
        // Values and two means, masks, gradients.
        let adapter = 3 * 4 * values as u64 + planned.size_bytes();
        let planned = weights + adapter + pass.size_bytes();
        let share = got as f64 / planned as f64;
        println!("{tokens} tokens: {got} of {planned} bytes, {:+.1} %", (share - 1.0) * 100.0);
        assert!(
            (share - 1.0).abs() <= 0.05,
            "{tokens} tokens: {got} bytes, planned {planned}: {pass:?}"
        );
    }
    drop((masks, means));
}
