//! How a run ends: exit codes, and errors as lines.

use std::io;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::process::ExitCode;

use crate::console::{printable, say};

/// Exit codes; `globe locate --help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All that was asked for was found.
    Success = 0,
    /// Something failed that should not.
    Failure = 1,
    /// Wrong usage, or a model or device that cannot be used.
    Usage = 2,
    /// Nothing failed, but something was not located or found.
    NotFound = 3,
    /// At least one image could not be read or answered.
    ImageFailed = 4,
    /// Stopped by a signal.
    Interrupted = 130,
}

/// An error with the exit code that it leads to.
#[derive(Debug)]
pub struct Fail {
    exit: Exit,
    error: anyhow::Error,
}

impl Fail {
    /// An error that the caller of the program can mend.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Usage, error: error.into() }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Fail {
    fn from(error: E) -> Self {
        Self { exit: Exit::Failure, error: error.into() }
    }
}

/// Marks errors that the caller of the program can mend.
pub trait OrUsage<T> {
    /// Makes an error end the program with [`Exit::Usage`].
    fn or_usage(self) -> Result<T, Fail>;
}

impl<T, E: Into<anyhow::Error>> OrUsage<T> for Result<T, E> {
    fn or_usage(self) -> Result<T, Fail> {
        self.map_err(Fail::usage)
    }
}

/// Runs a command and reports how it ended.
pub fn run(command: impl FnOnce() -> Result<Exit, Fail>) -> ExitCode {
    set_hook(Box::new(report_panic));
    let exit = match catch_unwind(AssertUnwindSafe(command)) {
        Ok(Ok(exit)) => exit,
        Ok(Err(fail)) if is_broken_pipe(&fail.error) => Exit::Success, // the reader has seen enough
        Ok(Err(fail)) => {
            say(format_args!("error: {}", chain(&fail.error)));
            fail.exit
        }
        Err(_) => Exit::Failure, // the hook has reported it
    };
    ExitCode::from(exit as u8)
}

fn report_panic(info: &PanicHookInfo) {
    let reason = info.payload_as_str().unwrap_or("no reason given");
    let place = info.location().map_or_else(String::new, |at| format!(" ({at})"));
    say(format_args!("error: internal failure, please report it: {reason}{place}"));
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    kinds.into_iter().any(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

/// The error with its causes on one line; a cause that its parent already states is left out.
pub fn chain(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    printable(&line)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_chain_is_one_line_without_repeats() {
        let io = io::Error::from(io::ErrorKind::NotFound);
        let open = globe_format::Error::Open { file: "config.json".into(), source: io };
        let error = Err::<(), _>(open).context("cannot load the model").unwrap_err();
        let expected = "cannot load the model: config.json: cannot open: entity not found";
        assert_eq!(chain(&error), expected);
    }

    #[test]
    fn only_a_closed_pipe_is_quiet() {
        let error = |kind: io::ErrorKind| {
            Err::<(), _>(io::Error::from(kind)).context("cannot write").unwrap_err()
        };
        assert!(is_broken_pipe(&error(io::ErrorKind::BrokenPipe)));
        assert!(!is_broken_pipe(&error(io::ErrorKind::StorageFull)));
    }

    #[test]
    fn errors_carry_their_exit_code() {
        let io = || Err::<(), _>(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(io().or_usage().unwrap_err().exit, Exit::Usage);
        assert_eq!(io().map_err(Fail::from).unwrap_err().exit, Exit::Failure);
    }
}
