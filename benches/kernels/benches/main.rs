//! How long each kernel takes on the adapter at hand: `auto`, or what `GLOBE_BENCH_DEVICE` names.
//!
//! An iteration queues one call; the device is waited for once per sample, so that neither the wait
//! nor the way there counts as the kernel's.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use globe_kernel_benches::{Case, Rig, Work, all};
use globe_ops::{DeviceChoice, Result};

/// Names the device that is measured: auto, gpu or software.
const DEVICE: &str = "GLOBE_BENCH_DEVICE";
/// Calls that may wait at once: what they write is held until the device has come to them.
const QUEUED: u64 = 64;

fn main() -> ExitCode {
    let name = std::env::var(DEVICE).unwrap_or_else(|_| "auto".to_string());
    let rig = name
        .parse::<DeviceChoice>()
        .map_err(|error| format!("{DEVICE}: {error}"))
        .and_then(|choice| Rig::open(choice).map_err(|error| error.to_string()));
    let rig = match rig {
        Ok(rig) => rig,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!("on {} ({:?} kernels)", rig.compute.name, rig.compute.variant());
    let mut criterion = Criterion::default().configure_from_args();
    all(&rig, &mut |case| measure(&mut criterion, &rig, case));
    criterion.final_summary();
    ExitCode::SUCCESS
}

fn measure(criterion: &mut Criterion, rig: &Rig, case: Case) {
    let mut group = criterion.benchmark_group(case.group);
    group.throughput(match case.work {
        Work::Bytes(n) => Throughput::Bytes(n),
        Work::Products(n) => Throughput::Elements(n),
    });
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.bench_function(case.name, |bencher| {
        bencher.iter_custom(|n| seconds(rig, case.call, n).expect("the device is there"));
    });
    group.finish();
}

/// Of `n` calls.
fn seconds(rig: &Rig, call: &mut dyn FnMut() -> Result<()>, n: u64) -> Result<Duration> {
    rig.wait()?;
    let start = Instant::now();
    for i in 1..=n {
        call()?;
        if i % QUEUED == 0 {
            rig.wait()?;
        }
    }
    rig.wait()?;
    Ok(start.elapsed())
}
