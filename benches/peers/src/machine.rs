//! Where and when: what a figure means nothing without.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Now, in UTC.
pub fn date() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// The checked-out commit of this repository; none outside of one.
pub fn commit() -> Option<String> {
    let folder = env!("CARGO_MANIFEST_DIR");
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(["-C", folder]).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_string())
    };
    let mut commit = git(&["rev-parse", "HEAD"])?;
    if !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() {
        commit += "-dirty";
    }
    Some(commit)
}

/// Model name of the CPU, where the system says it.
pub fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("model name"));
    let name = line.map(|line| line.trim_start_matches([' ', '\t', ':']).to_string());
    name.unwrap_or_else(|| std::env::consts::ARCH.to_string())
}

/// Threads that run at once.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Vector instructions that this program and its peers were compiled for.
pub fn compiled_for() -> Vec<&'static str> {
    let features = [
        ("avx2", cfg!(target_feature = "avx2")),
        ("fma", cfg!(target_feature = "fma")),
        ("avx512f", cfg!(target_feature = "avx512f")),
        ("avx512vnni", cfg!(target_feature = "avx512vnni")),
        ("neon", cfg!(target_feature = "neon")),
    ];
    features.into_iter().filter_map(|(name, has)| has.then_some(name)).collect()
}

/// The globe program: of a target folder if one is there, else of `PATH`.
pub fn globe() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let folders = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).into_iter().chain([own]);
    let name = format!("globe{}", std::env::consts::EXE_SUFFIX);
    folders
        .flat_map(|folder| ["release", "debug"].map(|profile| folder.join(profile).join(&name)))
        .find(|program| program.is_file())
        .unwrap_or_else(|| PathBuf::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_of_this_century() {
        assert!(date().starts_with("20") && date().ends_with('Z'));
    }

    #[test]
    fn the_machine_has_a_name_and_a_thread() {
        assert!(!cpu().is_empty() && !cpu().starts_with([':', ' ']));
        assert!(threads() > 0);
    }
}
