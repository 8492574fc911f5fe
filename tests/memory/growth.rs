//! Answering many photos takes no more memory than answering a few.

use globe_engine::{Cancel, Engine, Event, FeatureCache, LocateOptions, locate};
use globe_geo::Gazetteer;
use globe_image::Photo;
use globe_tests::{Golden, gpu};
use globe_text::Prompt;
use pollster::block_on;

use crate::{Alone, memory};

/// Runs before memory is looked at: pipelines are compiled and pools find their size.
const WARM_UP: usize = 40;
const RUNS: usize = 200;
/// Prompts and photos repeat their sizes after so many runs.
const SIZES: usize = 10;
/// Buffers of a kernel's parameters have 64 bytes; how many are in flight at most depends on how far the
/// device lags behind, which one of many runs finds out. A leak would be one or more a run.
const PARAMETER_BYTES: u64 = 1 << 10;
/// What the allocators of C and of the driver may keep: 10 KiB a run. One page of a forgotten
/// cache, batch or staging buffer a run would be more.
const HOST_GROWTH: u64 = 2 << 20;

/// Memory of the process as the kernel counts it, bytes. Pages of mapped files are left out: the kernel takes
/// them, those of this program as well, and brings them back as it likes.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some((kib("RssAnon:")? + kib("RssShmem:")? + kib("VmSwap:")?) << 10)
}

#[test]
fn two_hundred_photos_do_not_grow() {
    let _alone = Alone::new();
    let golden = Golden::open("window56");
    let engine = block_on(Engine::load(&golden.folder, gpu().clone(), &mut |_, _| {})).unwrap();
    let gazetteer = Gazetteer::full().unwrap();
    let (kept, cancel) = (FeatureCache::new(8 << 10), Cancel::default());
    let run = |i: usize| {
        // Different photos: each is encoded, and its features push older ones out.
        let (width, height) = ([56, 84][i % 2], 56);
        let photo = Photo::from_rgb(width, height, vec![i as u8; width * height * 3]).unwrap();
        let user = "Where?".repeat(1 + i % 5);
        let options = LocateOptions {
            prompt: Prompt { system: None, user },
            samples: 3,
            batch: Some(2), // two batches, the second smaller
            seed: i as u64,
            max_tokens: 3,
            ..LocateOptions::default()
        };
        let mut quiet = |_: Event| {};
        let located = locate(&engine, &gazetteer, &photo, &options, &kept, &cancel, &mut quiet);
        assert_eq!(block_on(located).unwrap().answers.len(), 3);
    };
    (0..WARM_UP).for_each(run);
    let (device, host) = (memory(), resident_bytes());
    for i in WARM_UP..WARM_UP + RUNS {
        run(i);
        if (i + 1).is_multiple_of(SIZES) {
            let now = memory();
            assert_eq!(now.in_use, device.in_use, "after {} photos", i + 1);
            let grown = now.reserved.saturating_sub(device.reserved);
            assert!(grown <= PARAMETER_BYTES, "{grown} bytes more after {} photos", i + 1);
        }
    }
    if let Some((before, after)) = host.zip(resident_bytes()) {
        let grown = after.saturating_sub(before);
        println!("{grown} bytes of host memory more after {RUNS} photos");
        assert!(grown <= HOST_GROWTH, "the process grew from {before} to {after} bytes");
    }
}
