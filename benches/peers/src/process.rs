//! Other programs, which answer in JSON.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Bytes of the last words that are kept.
const LAST_WORDS: usize = 300;

/// Runs `command`, called `program` in errors, and reads its standard output.
///
/// # Errors
/// [`Error::Start`], [`Error::Ended`] and [`Error::Answer`].
pub fn json_of<T: DeserializeOwned>(mut command: Command, program: &str) -> Result<T> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { program: PathBuf::from(command.get_program()), source })?;
    if !output.status.success() {
        return Err(Error::Ended {
            program: program.to_string(),
            status: output.status,
            last_words: last_words(&String::from_utf8_lossy(&output.stderr)),
        });
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|source| Error::Answer { program: program.to_string(), source })
}

/// The end of what a program said, in one line.
fn last_words(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let end = lines[lines.len().saturating_sub(3)..].join("; ");
    let from = end.ceil_char_boundary(end.len().saturating_sub(LAST_WORDS));
    if end.is_empty() { "it said nothing".to_string() } else { end[from..].to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_the_reason() {
        assert_eq!(last_words("a\nb\n\nc\n d \n"), "b; c; d");
        assert_eq!(last_words(" \n"), "it said nothing");
        assert_eq!(last_words(&"ü".repeat(400)).chars().count(), LAST_WORDS / 2);
    }

    #[test]
    fn what_a_program_does_wrong_is_an_error() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            json_of::<Vec<u32>>(command, "a shell")
        };
        assert_eq!(shell("echo [1,2]").unwrap(), [1, 2]);
        assert!(matches!(shell("echo no"), Err(Error::Answer { .. })));
        let error = shell("echo why >&2; exit 3").unwrap_err().to_string();
        assert_eq!(error, "a shell ended with exit status: 3: why");
        let missing = json_of::<u32>(Command::new("/nowhere/program"), "x");
        assert!(matches!(missing, Err(Error::Start { .. })));
    }
}
