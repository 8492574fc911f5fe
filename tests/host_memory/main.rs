//! No tensor is in host memory twice while a model loads, and few are while training saves and resumes.
//! A binary of its own: it counts what the allocator of the whole process hands out.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use globe_engine::{Demand, Engine, plan};
use globe_format::{Checkpoint, Dtype, Folder, OutTensor, SINGLE_FILE, write_safetensors};
use globe_model::Precision;
use globe_ops::Compute;
use globe_policy::{ModelPolicy, PolicyOptions};
use globe_tests::{golden_root, gpu, program};
use globe_text::Prompt;
use globe_train::assemble::stream;
use globe_train::config::{Config, Weights};
use globe_train::data::Part;
use globe_train::optimiser::{AdamWConfig, StateBits};
use globe_train::trainer::{Supervised, Task};
use serde_json::Value;

/// Bytes handed out and not given back, and the most there were.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator with a count. Drivers written in C and memory maps are not counted.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

impl Counting {
    fn add(size: usize) {
        PEAK.fetch_max(LIVE.fetch_add(size, Relaxed) + size, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) };
        LIVE.fetch_sub(layout.size(), Relaxed);
    }

    /// Old and new are both counted meanwhile: what grows may move.
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::add(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        let new = unsafe { System.realloc(at, layout, size) };
        LIVE.fetch_sub(if new.is_null() { size } else { layout.size() }, Relaxed);
        new
    }
}

/// Size of each of the two large tensors once widened to f32; the file stores them in half of it.
const TENSOR_BYTES: usize = VOCAB * HIDDEN * 4;
const HIDDEN: usize = 112;
const VOCAB: usize = 150_000;
const LARGE: [&str; 2] = ["model.language_model.embed_tokens.weight", "lm_head.weight"];

/// Writes the committed checkpoint `untied` with a vocabulary of [`VOCAB`].
fn write_model(folder: &Path) {
    let from = golden_root().join("untied");
    for file in ["tokenizer.json", "preprocessor_config.json"] {
        std::fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["text_config"]["hidden_size"], HIDDEN);
    config["text_config"]["vocab_size"] = VOCAB.into();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();

    let original = Folder::open(from).unwrap();
    let checkpoint = pollster::block_on(Checkpoint::open(&original)).unwrap();
    let large = vec![0x3c; TENSOR_BYTES / 2]; // bf16 0.0115
    let tensor = |name: &str| {
        let info = checkpoint.info(name).unwrap();
        let (dtype, shape, data) = if LARGE.contains(&name) {
            (Dtype::Bf16, vec![VOCAB, HIDDEN], Cow::Borrowed(&large[..]))
        } else {
            let data = pollster::block_on(checkpoint.read_bytes(name)).unwrap();
            (info.dtype, info.shape.clone(), data)
        };
        OutTensor { name: name.into(), dtype, shape, data }
    };
    let tensors: Vec<_> = checkpoint.names().map(tensor).collect();
    assert_eq!(tensors.iter().filter(|t| t.shape[0] == VOCAB).count(), LARGE.len());
    let bytes = write_safetensors(&tensors, &BTreeMap::new()).unwrap();
    std::fs::write(folder.join(SINGLE_FILE), bytes).unwrap();
}

/// Loads the model: the most bytes on the heap beyond those before.
fn peak(folder: &Folder, compute: Compute) -> usize {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let engine = pollster::block_on(Engine::load(folder, compute, &mut |_, _| {})).unwrap();
    let peak = PEAK.load(Relaxed) - before;
    assert_eq!(engine.model().config().text.vocab_size, VOCAB);
    peak
}

/// What the plan says of loading: `dense` on the CPU path, which holds its weights on the heap.
fn planned(folder: &Folder, dense: bool) -> usize {
    let plan = pollster::block_on(plan(folder, dense, &Demand::default())).unwrap();
    (plan.host_load + if dense { plan.weights } else { 0 }) as usize
}

/// Held while bytes are counted: one test at a time.
static COUNT: Mutex<()> = Mutex::new(());

#[test]
fn a_tensor_is_in_host_memory_once() {
    let _count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let temp = tempfile::tempdir().unwrap();
    write_model(temp.path());
    let folder = Folder::open(temp.path()).unwrap();
    // The CPU path keeps its weights on the heap, widened; a GPU takes one tensor, as it is stored, before
    // the next is read.
    let paths = [(gpu().clone(), 1, TENSOR_BYTES / 2), (Compute::cpu(), LARGE.len(), TENSOR_BYTES)];
    for (compute, n_large, bytes) in paths {
        // All else, small tensors and tokenizer, takes 2 MiB, what is converted at once 8; a second
        // copy would take 32 or 64.
        let limit = n_large * bytes + TENSOR_BYTES / 4;
        let (name, dense) = (compute.name.clone(), !compute.is_gpu());
        let planned = planned(&folder, dense);
        let peak = peak(&folder, compute);
        assert!(peak <= planned, "{name}: {peak} bytes at the peak, planned {planned}");
        assert!(peak >= bytes, "{name}: {peak} bytes; the allocator does not count");
        assert!(peak <= limit, "{name}: {peak} bytes at the peak, limit {limit}");
    }
}

/// A packed folder passes by in pieces, which are smaller than its tensors.
#[test]
fn a_packed_folder_is_on_the_heap_in_pieces() {
    let _count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let (checkpoint, packed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_model(checkpoint.path());
    let (from, out) = (checkpoint.path(), packed.path());
    let mut convert = Command::new(program());
    convert.args(["convert", "--bits", "8", "--quiet", "--from"]).arg(from).arg("--out").arg(out);
    assert!(convert.status().unwrap().success());

    let folder = Folder::open(out).unwrap();
    let planned = planned(&folder, false);
    let stored = VOCAB * HIDDEN; // 8 bits each, scales apart
    assert!(planned < stored, "{planned} bytes planned, a tensor has {stored}");
    let peak = peak(&folder, gpu().clone());
    assert!(peak <= planned, "{peak} bytes at the peak, planned {planned}");
}

/// The most bytes on the heap beyond those before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let done = work();
    (PEAK.load(Relaxed) - before, done)
}

/// A run that trains all weights of the model.
fn run(model: &Path, output: &Path, state_bits: StateBits) -> Supervised<ModelPolicy> {
    let folder = Folder::open(model).unwrap();
    let mut quiet = |_, _| {};
    let load = Engine::load_as(&folder, gpu().clone(), Precision::Trained, &mut quiet);
    let engine = Rc::new(RefCell::new(pollster::block_on(load).unwrap()));
    let options = PolicyOptions {
        prompt: Prompt::direct(),
        max_pixels: None,
        adamw: AdamWConfig { state_bits, ..AdamWConfig::default() },
        identity: "large".into(),
    };
    let policy = ModelPolicy::of_weights(engine, options, false, None).unwrap();
    let mut config = Config::default();
    config.run.output = output.display().to_string();
    config.model.weights = Weights::Full;
    config.optimiser.state_bits = state_bits;
    config.data.path = golden_root().join("training/places.jsonl").display().to_string();
    config.data.images = golden_root().join("images").display().to_string();
    let data = stream(&config, Part::Train).unwrap();
    Supervised::new(config, Task::Imitate, policy, data, None)
}

/// All weights and both means are six large tensors: never more than a few are on the host.
#[test]
fn a_checkpoint_passes_through_host_memory_tensor_by_tensor() {
    let _count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let (model, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_model(model.path());
    // With 8 bits both means of a tensor are unpacked at once, and one goes through the device.
    for (bits, n_tensors) in [(StateBits::ThirtyTwo, 2), (StateBits::Eight, 3)] {
        let output = output.path().join(format!("{n_tensors}"));
        let mut first = run(model.path(), &output, bits);
        let (saving, path) = peak_of(|| first.save().unwrap());
        drop(first);
        let bytes = |name: &str| std::fs::metadata(path.join(name)).unwrap().len() as usize;
        assert!(bytes("parameters.safetensors") > LARGE.len() * TENSOR_BYTES);
        assert!(bytes("optimiser.safetensors") > 2 * LARGE.len() * TENSOR_BYTES);

        let mut second = run(model.path(), &output, bits);
        let loaded = second.store().load(0).unwrap();
        let (loading, ()) = peak_of(|| second.resume(&loaded, false).unwrap());
        let limit = n_tensors * TENSOR_BYTES + TENSOR_BYTES / 4;
        for (what, peak) in [("saving", saving), ("loading", loading)] {
            println!("{what}, {bits:?}: {:.2} tensors", peak as f64 / TENSOR_BYTES as f64);
            assert!(peak >= TENSOR_BYTES, "{what}: {peak} bytes; the allocator does not count");
            assert!(peak <= limit, "{what}, {bits:?}: {peak} bytes at the peak, limit {limit}");
        }
    }
}
