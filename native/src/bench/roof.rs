//! What the adapter can do at best.

use std::time::Instant;

use globe_ops::{Compute, Work, read_f32};
use serde::Serialize;

use super::stats::Stats;
use crate::exit::Fail;

/// How much there is to do at once.
struct Amount {
    /// To be copied: far more than the caches hold.
    bytes: usize,
    /// Workgroups of the multiplication.
    groups: usize,
}

/// Processors, with graphics or without.
const SMALL: Amount = Amount { bytes: 64 << 20, groups: 256 };
/// Cards, whose caches hold up to 128 MiB, and whose 100 to 200 units must end together.
const LARGE: Amount = Amount { bytes: 256 << 20, groups: 4096 };
/// Values at both ends of what was written that are looked at: all of them would be another 256 MiB on the host.
const CHECKED: usize = 1 << 18;
/// Seconds of work in one measurement, so that starting it does not count.
const ENOUGH_SECONDS: f64 = 0.05;
/// Most runs in one measurement.
const MAX_RUNS: usize = 4096;

/// The two limits.
#[derive(Serialize)]
pub struct Roof {
    /// Bytes read and written per second.
    pub copy_gigabytes_per_second: f64,
    /// Multiplications and additions per second.
    pub gigaflops_per_second: f64,
}

impl Roof {
    /// Runs both kernels.
    pub async fn measure(compute: &Compute, repeats: usize) -> Result<Self, Fail> {
        let Amount { bytes, groups } = if compute.shares_host_memory() { SMALL } else { LARGE };
        let limit = usize::try_from(compute.max_binding_bytes).unwrap_or(usize::MAX);
        let copy = Work::copy(bytes.min(limit), compute);
        let multiply = Work::multiply(groups, compute);
        Ok(Self {
            copy_gigabytes_per_second: copy.bytes / seconds(&copy, compute, repeats).await? / 1e9,
            gigaflops_per_second: multiply.flops
                / seconds(&multiply, compute, repeats).await?
                / 1e9,
        })
    }
}

/// Median seconds of one run.
async fn seconds(work: &Work, compute: &Compute, repeats: usize) -> Result<f64, Fail> {
    let mut runs = 1;
    let mut times = Vec::new();
    while times.len() < repeats {
        super::wait(compute).await?;
        let start = Instant::now();
        for _ in 0..runs {
            work.launch()?;
        }
        super::wait(compute).await?;
        let seconds = start.elapsed().as_secs_f64();
        if seconds < ENOUGH_SECONDS && runs < MAX_RUNS {
            runs *= 2;
        } else {
            times.push(seconds / runs as f64);
        }
    }
    // Bytes that are touched cannot have been skipped.
    let result = work.result();
    let [n] = result.dims();
    for part in [0..n.min(CHECKED), n - n.min(CHECKED)..n] {
        let values = read_f32(result.clone().slice([part])).await?;
        let expected = values.iter().all(|value| *value == work.written);
        super::sure(expected, "a roof kernel wrote other values than it should")?;
    }
    Ok(Stats::new(times).median)
}
