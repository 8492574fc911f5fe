//! Waiting in a browser's tab, where the event loop must run on.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use js_sys::{Function, Promise};
use wasm_bindgen::JsValue;

thread_local! {
    static IS_WOKEN: Cell<bool> = const { Cell::new(false) };
    static RESUME: RefCell<Option<Function>> = const { RefCell::new(None) };
}

struct Resume;

impl Wake for Resume {
    fn wake(self: Arc<Self>) {
        IS_WOKEN.set(true);
        if let Some(resume) = RESUME.take() {
            // The function that settles a promise cannot throw.
            let _ = resume.call0(&JsValue::NULL);
        }
    }
}

/// Runs a future to its end. The stack of the module is put aside while it waits, so that a test
/// reads as it does natively; one test at a time, called through an export with `jspi`.
///
/// # Panics
/// If the browser has no JavaScript Promise Integration.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Resume));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        if IS_WOKEN.take() {
            continue;
        }
        let woken = Promise::new(&mut |resolve, _| {
            RESUME.set(Some(resolve));
        });
        #[allow(deprecated, reason = "marks what wasm-bindgen calls experimental")]
        js_sys::futures::jspi_block_on_promise(&woken).expect("the promise is never rejected");
        IS_WOKEN.set(false);
    }
}
