//! How much memory a conversion holds at its peak. Alone in its binary, for it counts all of it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

use globe_format::{
    Checkpoint, Folder, OutTensor, SINGLE_FILE,
    pack::{PackJob, PackOptions, pack},
    packed::{Class, Provenance, SourceRows, TensorSpec},
    write_safetensors,
};
use pollster::block_on;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROWS: usize = 6000;
const COLS: usize = 1024;

fn source(name: &str) -> SourceRows {
    SourceRows { name: name.into(), rows: ROWS, cols: COLS, padded_rows: ROWS }
}

#[test]
fn a_conversion_holds_at_most_two_shards() {
    let (from, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let values: Vec<f32> = (0..ROWS * COLS).map(|i| (i % 1009) as f32 * 1e-4 - 0.05).collect();
    let tensors = ["a", "b"].map(|name| OutTensor::f32(name, &[ROWS, COLS], &values));
    let bytes = write_safetensors(&tensors, &BTreeMap::new()).unwrap();
    fs::write(from.path().join(SINGLE_FILE), bytes).unwrap();
    drop((values, tensors));

    let folder = Folder::open(from.path()).unwrap();
    let checkpoint = block_on(Checkpoint::open(&folder)).unwrap();
    let pair = || vec![source("a"), source("b")];
    let specs = [
        TensorSpec::interleave("gate_up", Class::Text, pair()),
        TensorSpec::stack("both", Class::Vision, pair()).padded_to(1056),
        TensorSpec::matrix("a", Class::Embedding, ROWS, COLS),
    ];
    let shard_bytes = 4 << 20;
    let job = PackJob {
        architecture: "test",
        specs: &specs,
        options: PackOptions { shard_bytes, ..PackOptions::default() },
        source: Provenance::default(),
        files: Vec::new(),
    };
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let manifest = block_on(pack(&job, &checkpoint, out.path(), &mut |_| {}, &|| false)).unwrap();
    let peak = (PEAK.load(Ordering::Relaxed) - before) as u64;
    assert!(manifest.total_bytes > 5 * shard_bytes, "{} bytes", manifest.total_bytes);
    assert!(peak <= 2 * shard_bytes, "{peak} bytes at the peak");
}
