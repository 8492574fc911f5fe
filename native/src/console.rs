//! Standard output and standard error, without panics when a reader has gone away.

use std::fmt::Arguments;
use std::io::{self, Write};

/// Keeps Vulkan drivers from printing an error per adapter where no desktop runs.
///
/// Call it first: no other thread may run.
pub fn quiet_drivers() {
    let is_set = |name| std::env::var_os(name).is_some();
    if cfg!(target_os = "linux") && !is_set("XDG_RUNTIME_DIR") && !is_set("WAYLAND_DISPLAY") {
        // libwayland, which drivers load, complains when it cannot tell where its socket would be.
        // SAFETY: no other thread runs that could read the environment meanwhile.
        unsafe { std::env::set_var("WAYLAND_DISPLAY", "/nonexistent") };
    }
}

/// Writes results to standard output.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes one line to standard error. There is nowhere to report that this failed.
pub fn say(line: Arguments) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The text with control characters made visible: model text and file names must not steer a
/// terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2J\r\u{9b}\nGenève"), "a\u{fffd}[2J\u{fffd}\u{fffd}\nGenève");
    }
}
