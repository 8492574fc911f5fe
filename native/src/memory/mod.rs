//! How much device memory may be used, as far as anyone knows.
//!
//! The figure is what the user says, else a share of what is free: of the host's memory where the adapter shares
//! it, of the adapter's own where Vulkan tells; else it is unknown.

mod phases;

use std::fs::read_to_string;

use anyhow::{Context, anyhow};
use clap::Args;
use globe_ops::{Adapter, Compute, DeviceChoice, KvFormat, adapters};

use crate::exit::{Fail, OrUsage};

pub use phases::{PhaseMemory, Phases};

/// Sets the budget when `--memory-mb` does not, MiB.
const MEMORY_VARIABLE: &str = "GLOBE_MEMORY_MB";
/// Share of the host's free memory that a model may take, percent: the rest is for photos, the
/// tokenizer and what the driver copies.
const HOST_SHARE: u64 = 80;
/// Share of what an adapter has left, percent: the rest is for drivers and pipelines.
const ADAPTER_SHARE: u64 = 95;

/// The option that sets the budget.
#[derive(Clone, Copy, Debug, Args)]
pub struct MemoryArgs {
    /// Device memory that may be used, MiB [default: $GLOBE_MEMORY_MB; else 80 % of the free host
    /// memory where the device shares it, 95 % of what a GPU of its own memory has free where Vulkan tells]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub memory_mb: Option<u64>,
    /// Bits of each number in the cache of keys and values; 16 halve it, and change tokens a little
    #[arg(long, value_name = "16|32", default_value_t, value_parser = cache_bits)]
    pub cache_bits: CacheBits,
}

/// How the cache stores keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheBits(pub KvFormat);

impl std::fmt::Display for CacheBits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0 == KvFormat::F16 { "16" } else { "32" })
    }
}

fn cache_bits(text: &str) -> Result<CacheBits, String> {
    match text {
        "16" => Ok(CacheBits(KvFormat::F16)),
        "32" => Ok(CacheBits(KvFormat::F32)),
        other => Err(format!("a cache of {other} bits does not exist; use 16 or 32")),
    }
}

/// Device memory that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes, if known.
    pub bytes: Option<u64>,
    /// Where the figure comes from.
    pub source: &'static str,
}

impl MemoryArgs {
    /// The budget on an open device.
    pub fn on(&self, compute: &Compute) -> Result<Budget, Fail> {
        self.budget(compute.shares_host_memory(), compute.memory_bytes())
    }

    /// The budget on the device that a choice would open, and whether weights are f32 there: on the CPU path.
    pub async fn on_choice(&self, choice: DeviceChoice) -> Result<(Budget, bool), Fail> {
        let adapters = if choice == DeviceChoice::Cpu { Vec::new() } else { adapters().await };
        let is_chosen = |one: &&Adapter| match choice {
            DeviceChoice::Gpu => !one.software,
            DeviceChoice::Software => one.software,
            DeviceChoice::Auto | DeviceChoice::Cpu => true,
        };
        let first = adapters.iter().find(is_chosen);
        if first.is_none() && matches!(choice, DeviceChoice::Gpu | DeviceChoice::Software) {
            return Err(Fail::usage(anyhow!(
                "no such adapter; `globe devices` lists what there is"
            )));
        }
        // One that several APIs list tells by one of them.
        let same = |one: &&Adapter| first.is_some_and(|first| first.name == one.name);
        let own_bytes = adapters.iter().filter(same).find_map(|one| one.memory_bytes);
        let on_host = first.is_none_or(|one| one.shares_host_memory);
        Ok((self.budget(on_host, own_bytes)?, first.is_none()))
    }

    fn budget(&self, on_host: bool, own_bytes: Option<u64>) -> Result<Budget, Fail> {
        if let Some(mib) = self.memory_mb {
            return Ok(Budget { bytes: Some(mib << 20), source: "--memory-mb" });
        }
        if let Some(text) = std::env::var_os(MEMORY_VARIABLE).filter(|text| !text.is_empty()) {
            let mib = parse(&text.to_string_lossy()).or_usage()?;
            return Ok(Budget { bytes: Some(mib << 20), source: MEMORY_VARIABLE });
        }
        let share = |free: Option<u64>, percent| free.map(|bytes| bytes / 100 * percent);
        Ok(match (on_host, share(host_free_bytes(), HOST_SHARE), share(own_bytes, ADAPTER_SHARE)) {
            (true, Some(bytes), _) => {
                Budget { bytes: Some(bytes), source: "80 % of the free host memory" }
            }
            (false, _, Some(bytes)) => {
                Budget { bytes: Some(bytes), source: "95 % of what the adapter has free" }
            }
            _ => Budget { bytes: None, source: "unknown: this adapter does not tell" },
        })
    }
}

fn parse(text: &str) -> anyhow::Result<u64> {
    let mib = text.trim().parse().ok().filter(|mib| (1..=1 << 30).contains(mib));
    mib.with_context(|| format!("{MEMORY_VARIABLE} is `{text}`, expected a whole number of MiB"))
}

/// Memory that the host has free, as far as the system tells: what a container may take counts.
fn host_free_bytes() -> Option<u64> {
    let free = kib_line(&read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let number = |file: &str| {
        let text = read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?;
        text.trim().parse::<u64>().ok() // `max` is no limit
    };
    let contained = number("memory.max").zip(number("memory.current"));
    let contained = contained.map_or(u64::MAX, |(max, current)| max.saturating_sub(current));
    Some(free.min(contained))
}

/// Bytes in a line such as `VmHWM:  12 kB`.
fn kib_line(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_comes_first_and_hardware_is_what_it_says() {
        let args = |memory_mb| MemoryArgs { memory_mb, cache_bits: CacheBits::default() };
        let said = args(Some(3)).budget(true, None).unwrap();
        assert_eq!((said.bytes, said.source), (Some(3 << 20), "--memory-mb"));
        if std::env::var_os(MEMORY_VARIABLE).is_none() {
            assert_eq!(args(None).budget(false, None).unwrap().bytes, None);
            let hardware = args(None).budget(false, Some(8 << 30)).unwrap();
            assert_eq!(hardware.bytes, Some((8 << 30) / 100 * 95));
        }
    }

    #[test]
    fn lines_of_the_kernel_are_read_and_nonsense_is_refused() {
        let text = "MemFree: 1 kB\nMemAvailable:      2048 kB\n";
        assert_eq!(kib_line(text, "MemAvailable:"), Some(2 << 20));
        assert_eq!(kib_line(text, "Swap:"), None);
        assert_eq!(parse(" 7 ").unwrap(), 7);
        for text in ["", "0", "-1", "2 GB", "99999999999999999999"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
