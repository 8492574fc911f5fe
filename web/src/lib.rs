//! The browser border: for now the proof that the engine compiles to wasm32.

// The linker treats a module with static constructors as a command and runs all of them on every
// exported call, which makes Burn 200 times slower. Naming the symbol once stops that.
#[cfg(target_family = "wasm")]
mod start {
    use wasm_bindgen::prelude::wasm_bindgen;

    unsafe extern "C" {
        fn __wasm_call_ctors();
    }

    /// Runs static constructors once.
    #[wasm_bindgen(start)]
    pub fn start() {
        // SAFETY: called once, before any other export, as the linker's own start code would.
        unsafe { __wasm_call_ctors() }
    }
}
