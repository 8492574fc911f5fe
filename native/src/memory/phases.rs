//! Most memory that each phase of a run has held.

use std::fs::read_to_string;

use globe_ops::{Compute, DeviceMemory};
use serde::Serialize;

use super::kib_line;

/// Most memory of one phase. A device may still be at work when the next phase begins; what its
/// driver takes on the host for it counts there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PhaseMemory {
    /// `load`, `encode`, `prefill` or `decode`.
    pub phase: &'static str,
    /// Device memory in live buffers at the end.
    pub device_bytes_in_use: u64,
    /// Most device memory held of the driver: pages stay when the buffers in them go.
    pub device_bytes_reserved: u64,
    /// Most memory of the process, where the system tells.
    pub host_peak_bytes: Option<u64>,
}

/// Watches one phase after the other.
#[derive(Default)]
pub struct Phases {
    start: DeviceMemory,
    ended: Vec<PhaseMemory>,
}

impl Phases {
    /// The first phase begins now.
    pub fn begin() -> Self {
        reset_host_peak();
        Self::default()
    }

    /// The phase that began last ends here, and the next begins.
    pub fn end(&mut self, phase: &'static str, compute: &Compute) {
        let now = compute.memory();
        self.ended.push(PhaseMemory {
            phase,
            device_bytes_in_use: now.in_use,
            device_bytes_reserved: now.reserved.max(self.start.reserved),
            host_peak_bytes: host_peak_bytes(),
        });
        self.start = now;
        reset_host_peak();
    }

    /// The phases so far.
    pub fn finish(self) -> Vec<PhaseMemory> {
        self.ended
    }
}

/// Most memory that the process has held since the last reset, where the system tells.
pub fn host_peak_bytes() -> Option<u64> {
    kib_line(&read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Lets the peak start over at what is held now. Where the kernel does not allow it, peaks are
/// those since the start of the process.
fn reset_host_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5"); // see proc_pid_clear_refs(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_has_its_own_peak() {
        let (mut phases, cpu) = (Phases::begin(), Compute::cpu());
        let large = vec![1u8; 64 << 20];
        assert_eq!(large.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>(), 1 << 14);
        phases.end("load", &cpu);
        drop(large);
        phases.end("encode", &cpu); // begins with the pages of `large`, at most
        phases.end("decode", &cpu);
        let ended = phases.finish();
        assert_eq!(ended.iter().map(|p| p.phase).collect::<Vec<_>>(), ["load", "encode", "decode"]);
        let Some((load, decode)) = ended[0].host_peak_bytes.zip(ended[2].host_peak_bytes) else {
            return; // not Linux: nothing is claimed
        };
        assert!(load >= 64 << 20, "{load}");
        assert!(decode <= load, "{decode} after {load}");
    }
}
