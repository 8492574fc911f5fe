//! The kernel tests in a browser's tab: the very files that `tests/it` compiles natively.
//!
//! `web/tests/kernels.test.mjs` calls the exports. A package of its own, because the oracle's gradients
//! need features of Burn that the engine in the tab goes without.

#![cfg(target_family = "wasm")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(deprecated, reason = "exports that wait are what wasm-bindgen calls experimental")]

#[macro_use]
extern crate globe_browser_test_attribute;

#[path = "../it/adamw.rs"]
mod adamw;
#[path = "../it/adamw_8bit.rs"]
mod adamw_8bit;
#[path = "../it/attention.rs"]
mod attention;
#[path = "../it/attention_backward.rs"]
mod attention_backward;
#[path = "../it/attention_step.rs"]
mod attention_step;
#[path = "../it/column_sums.rs"]
mod column_sums;
#[path = "../it/gather_rows.rs"]
mod gather_rows;
#[path = "../it/gelu.rs"]
mod gelu;
#[path = "../it/gelu_backward.rs"]
mod gelu_backward;
#[path = "../it/linear.rs"]
mod linear;
#[path = "../it/linear_backward_weight.rs"]
mod linear_backward_weight;
#[path = "../it/logp_gather.rs"]
mod logp_gather;
#[path = "../it/packed_gather.rs"]
mod packed_gather;
#[path = "../it/packed_linear.rs"]
mod packed_linear;
#[path = "../it/packed_linear_backward.rs"]
mod packed_linear_backward;
#[path = "../it/rms_norm.rs"]
mod rms_norm;
#[path = "../it/rms_norm_backward.rs"]
mod rms_norm_backward;
#[path = "../it/rms_norm_backward_weight.rs"]
mod rms_norm_backward_weight;
#[path = "../it/rotary.rs"]
mod rotary;
#[path = "../it/rotary_split.rs"]
mod rotary_split;
#[path = "../it/rotary_split_backward.rs"]
mod rotary_split_backward;
#[path = "../it/sample.rs"]
mod sample;
#[path = "../it/scatter_add_rows.rs"]
mod scatter_add_rows;
#[path = "../it/scatter_rows.rs"]
mod scatter_rows;
#[path = "../it/silu_mul.rs"]
mod silu_mul;
#[path = "../it/swiglu.rs"]
mod swiglu;

use std::cell::RefCell;

use globe_tests::{ELEMENT_TOL, SUM_TOL, gradient};
use wasm_bindgen::prelude::wasm_bindgen;

unsafe extern "C" {
    fn __wasm_call_ctors();
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs static constructors once, as the engine's own start does: see there for the reason.
#[wasm_bindgen(start)]
pub fn start() {
    // SAFETY: called once, before any other export, as the linker's own start code would.
    unsafe { __wasm_call_ctors() }
    std::panic::set_hook(Box::new(|info| LAST_PANIC.set(Some(info.to_string()))));
}

/// Why a test failed: a trap reaches JavaScript without its message.
#[wasm_bindgen(js_name = lastPanic)]
pub fn last_panic() -> Option<String> {
    LAST_PANIC.take()
}
