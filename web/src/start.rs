//! What runs before anything else, and what outlives a call.

use std::cell::RefCell;

use globe_engine::Cancel;
use wasm_bindgen::prelude::wasm_bindgen;

unsafe extern "C" {
    fn __wasm_call_ctors();
}

#[wasm_bindgen]
extern "C" {
    /// Where a developer looks first.
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(text: &str);
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs static constructors once. The linker treats a module that has them as a command and runs
/// all of them on every exported call, which makes Burn 200 times slower; naming the symbol once
/// stops that.
#[wasm_bindgen(start)]
pub fn start() {
    // SAFETY: called once, before any other export, as the linker's own start code would.
    unsafe { __wasm_call_ctors() }
    std::panic::set_hook(Box::new(|info| {
        console_error(&info.to_string());
        LAST_PANIC.with_borrow_mut(|last| *last = Some(info.to_string()));
    }));
}

/// What the module said before it trapped. A trap reaches JavaScript without its message, and a
/// driver that fails makes the GPU runtime panic.
#[wasm_bindgen(js_name = lastPanic)]
pub fn last_panic() -> Option<String> {
    LAST_PANIC.with_borrow(Clone::clone)
}

/// Stops a running call from outside, between two steps.
#[wasm_bindgen]
#[derive(Default)]
pub struct Stop(pub(crate) Cancel);

#[wasm_bindgen]
impl Stop {
    /// A stop that was not asked for yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the stop.
    pub fn stop(&self) {
        self.0.cancel();
    }
}
