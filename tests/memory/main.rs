//! What memory a model takes: planned, kept, given back. A binary of its own: the device's counts
//! are those of the whole process, so one test runs at a time.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod batch;
mod growth;
mod plan;
mod reuse;
mod training;
mod vision;
mod weights;

use std::sync::{Mutex, MutexGuard, PoisonError};

use globe_model::Config;
use globe_ops::DeviceMemory;
use globe_tests::gpu;
use serde_json::json;

/// The device for one test, with nothing on it but what it always holds.
struct Alone {
    _turn: MutexGuard<'static, ()>,
    before: DeviceMemory,
}

impl Alone {
    fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        // A test that failed has dropped what it held.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        gpu().free_unused().unwrap();
        Self { _turn: turn, before: memory() }
    }

    /// Bytes of live buffers beyond those before the test.
    fn in_use(&self) -> u64 {
        memory().in_use - self.before.in_use
    }
}

/// What the device holds when all that was asked of it is done: what is still queued holds its buffers.
fn memory() -> DeviceMemory {
    gpu().device.sync().unwrap();
    gpu().memory()
}

/// A model large enough for its parts to stand out: a tower of 3 blocks, 4 layers.
fn config() -> Config {
    let json = json!({
        "model_type": "qwen2_5_vl", "vocab_size": 20_000, "hidden_size": 512,
        "intermediate_size": 1500, "num_hidden_layers": 4, "num_attention_heads": 8,
        "num_key_value_heads": 2, "tie_word_embeddings": false, "image_token_id": IMAGE,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 8000,
        "rope_scaling": { "type": "mrope", "mrope_section": [8, 12, 12] },
        "vision_config": {
            "depth": 3, "hidden_size": 320, "num_heads": 4, "intermediate_size": 852,
            "out_hidden_size": 512, "fullatt_block_indexes": [1]
        }
    });
    Config::parse(json.to_string().as_bytes()).unwrap()
}

const IMAGE: u32 = 19_999;
