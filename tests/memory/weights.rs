//! Training of all weights holds what its plan counts.

use std::cell::RefCell;
use std::rc::Rc;

use globe_engine::Engine;
use globe_format::BLOCK;
use globe_format::packed::Class;
use globe_model::{Precision, Qwen2_5Vl, WeightPlan};
use globe_ops::ByteMeans;
use globe_policy::{ModelPolicy, PolicyOptions};
use globe_tests::{Golden, gpu};
use globe_text::Prompt;
use globe_train::optimiser::{AdamWConfig, StateBits};
use pollster::block_on;

use crate::Alone;

/// Of every buffer: where it starts, and the tables of packed means.
const PER_TENSOR: u64 = 4 << 10;

#[track_caller]
fn assert_near(what: &str, got: u64, planned: u64, tensors: usize) {
    let most = planned + PER_TENSOR * tensors as u64;
    assert!((planned..=most).contains(&got), "{what}: {got} bytes, planned {planned}");
}

#[test]
fn weights_gradients_and_means_are_as_planned() {
    let alone = Alone::new();
    let golden = Golden::open("tied");
    for state_bits in [StateBits::ThirtyTwo, StateBits::Eight] {
        let (compute, precision, mut quiet) = (gpu().clone(), Precision::Trained, |_, _| {});
        let load = Engine::load_as(&golden.folder, compute, precision, &mut quiet);
        let engine = block_on(load).unwrap();
        let specs = Qwen2_5Vl::packed_specs(engine.model().config());
        let planned = WeightPlan::trained(&specs, false);
        assert_eq!(engine.model().weights(), planned);
        let weights = alone.in_use();
        assert_near("weights", weights, planned.total(), specs.len());

        let text: Vec<_> = specs.iter().filter(|s| !s.name.starts_with("visual.")).collect();
        let n = text.iter().map(|spec| match spec.class {
            Class::Vector => spec.rows,
            _ => spec.rows * spec.cols.next_multiple_of(BLOCK),
        });
        let n: usize = n.sum();
        let engine = Rc::new(RefCell::new(engine));
        let options = PolicyOptions {
            prompt: Prompt::reason(),
            max_pixels: None,
            adamw: AdamWConfig { state_bits, ..AdamWConfig::default() },
            identity: String::new(),
        };
        let policy = ModelPolicy::of_weights(engine.clone(), options, false, None).unwrap();
        let means = alone.in_use() - weights;
        let planned = match state_bits {
            StateBits::ThirtyTwo => 8 * n as u64,
            StateBits::Eight => ByteMeans::size_bytes(n),
        };
        assert_near(&format!("means, {state_bits:?}"), means, planned, 2 * text.len());

        let sum = engine.borrow_mut().model_mut().weight_gradients(false).unwrap();
        let gradients = alone.in_use() - weights - means;
        assert_near("gradients", gradients, 4 * n as u64, text.len());
        drop((sum, policy, engine));
    }
}
