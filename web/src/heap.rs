//! The module's heap, counted: `memory.buffer` says what was ever taken, not what is held.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Every allocation of the module goes through it.
#[global_allocator]
static HEAP: Counted = Counted { held: AtomicUsize::new(0), peak: AtomicUsize::new(0) };

struct Counted {
    held: AtomicUsize,
    peak: AtomicUsize,
}

impl Counted {
    fn grown(&self, bytes: usize) {
        // Two steps are enough: the module has one thread.
        let held = self.held.fetch_add(bytes, Relaxed) + bytes;
        self.peak.fetch_max(held, Relaxed);
    }

    fn shrunk(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is the one that is asked for here.
        let at = unsafe { System.alloc(layout) };
        if !at.is_null() {
            self.grown(layout.size());
        }
        at
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let at = unsafe { System.alloc_zeroed(layout) };
        if !at.is_null() {
            self.grown(layout.size());
        }
        at
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        self.shrunk(layout.size());
        // SAFETY: `at` came from this allocator with this layout, so it came from the system's.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`, and `size` is the caller's promise.
        let moved = unsafe { System.realloc(at, layout, size) };
        if !moved.is_null() {
            // A move holds both for a moment; growing in place does not. The larger is counted.
            self.grown(size);
            self.shrunk(layout.size());
        }
        moved
    }
}

/// Bytes that the module holds on its heap now.
pub(crate) fn held() -> usize {
    HEAP.held.load(Relaxed)
}

/// Most bytes that it ever held.
pub(crate) fn peak() -> usize {
    HEAP.peak.load(Relaxed)
}
