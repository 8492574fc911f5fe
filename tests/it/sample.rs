//! Choosing tokens on the device against the same on the host.

use globe_engine::{Draw, Sampling};
use globe_ops::{BatchStart, BatchState, SampleOptions, advance, read_i32, sample, tensor_f32};
use globe_tests::{assert_close, gpu, random, values};

/// exp and log within a few units in the last place, summed over a vocabulary.
const LOGP_TOL: f32 = 2e-5;

struct Run {
    sampling: Sampling,
    vocab: usize,
    samples: Vec<u32>,
    steps: usize,
}

fn logits(run: &Run, step: usize) -> Vec<f32> {
    random(run.samples.len() * run.vocab, 100 + step as u64).iter().map(|x| x * 6.0).collect()
}

const PROMPT: [u32; 5] = [0, 3, 3, 1, 9];
const SEED: u64 = 0x1234_5678_9abc;

/// Tokens and logarithms, step by step and row by row.
fn on_device(run: &Run) -> (Vec<i32>, Vec<f32>) {
    let device = &gpu().device;
    let penalties = run.sampling.has_penalties().then_some((&PROMPT[..], run.vocab));
    let samples = &run.samples;
    let start = BatchStart { prefix: 5, tail: run.steps, position: 5, samples, penalties };
    let state = BatchState::new(&start, device);
    let options = run.sampling.on_device(SEED);
    let (mut ids, mut logp) = (Vec::new(), Vec::new());
    for step in 0..run.steps {
        let logits = tensor_f32(logits(run, step), [samples.len(), run.vocab], device);
        sample(logits, &state, &options).unwrap();
        advance(&state, &[]).unwrap();
        ids.extend(globe_tests::block_on(read_i32(state.tokens.clone())).unwrap());
        logp.extend(values(state.logp.clone()));
    }
    (ids, logp)
}

fn on_host(run: &Run) -> (Vec<i32>, Vec<f32>) {
    let mut answers = vec![Vec::new(); run.samples.len()];
    let (mut ids, mut logps) = (Vec::new(), Vec::new());
    for step in 0..run.steps {
        let logits = logits(run, step);
        for (row, sample) in run.samples.iter().enumerate() {
            let mut row_logits = logits[row * run.vocab..][..run.vocab].to_vec();
            let draw = Draw { seed: SEED, sample: *sample, position: step as u32 };
            let (id, logp) = run.sampling.choose(&mut row_logits, &PROMPT, &answers[row], &draw);
            answers[row].push(id);
            ids.push(id as i32);
            logps.push(logp);
        }
    }
    (ids, logps)
}

#[test]
fn device_and_host_choose_the_same_tokens() {
    let plain = Sampling { temperature: 0.7, ..Sampling::default() };
    let samplings = [
        Sampling::greedy(),
        plain,
        Sampling { top_k: 1, ..plain },
        Sampling { top_k: 50, ..plain },
        Sampling { top_p: 0.5, ..plain },
        Sampling { top_k: 20, top_p: 0.9, ..plain },
        Sampling { repetition_penalty: 1.3, ..Sampling::greedy() },
        Sampling { frequency_penalty: 0.7, presence_penalty: 0.7, ..plain },
    ];
    for sampling in samplings {
        for vocab in [11, 256, 1003, 4096, 4097, 9003] {
            let run = Run { sampling, vocab, samples: vec![0, 1, 7], steps: 6 };
            let ((ids, logp), (expected_ids, expected_logp)) = (on_device(&run), on_host(&run));
            assert_eq!(ids, expected_ids, "{sampling:?}, vocabulary of {vocab}");
            assert_close("logp", &logp, &expected_logp, LOGP_TOL);
        }
    }
}

#[test]
fn the_history_notes_every_token_until_a_row_is_finished() {
    let device = &gpu().device;
    let start = BatchStart { prefix: 4, tail: 3, position: 9, samples: &[0, 1], penalties: None };
    let state = BatchState::new(&start, device);
    let greedy = SampleOptions::default();
    for winners in [[2, 1], [0, 2], [1, 1]] {
        let mut logits = vec![0.0; 6];
        for (row, winner) in winners.iter().enumerate() {
            logits[row * 3 + winner] = 1.0;
        }
        sample(tensor_f32(logits, [2, 3], device), &state, &greedy).unwrap();
        advance(&state, &[0]).unwrap();
    }
    let read = |tensor| globe_tests::block_on(read_i32(tensor)).unwrap();
    let history = read(state.history.clone());
    let tokens: Vec<i32> = history[..12].iter().step_by(2).copied().collect();
    assert_eq!(tokens, [2, 1, 0, 2, -1, 1], "row 0 stops at token 0");
    assert_eq!(history[12..], [1, 0], "finished flags");
    // Row 0 drew two tokens, the stop token included, and then stood still.
    let places = globe_tests::block_on(read_i32(state.places.clone())).unwrap();
    assert_eq!(places, [4, 4, 2, 10, 4, 7, 3, 11]);
    assert_eq!(read(state.slots.clone()), [5, 9]);
}
