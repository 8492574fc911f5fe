//! Standard output and standard error, without panics when a reader has gone away.

use std::fmt::Arguments;
use std::io::{self, Write};

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
