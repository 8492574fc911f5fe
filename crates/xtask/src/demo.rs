//! `cargo xtask demo`: from a fresh clone to an answered photo.

use std::path::PathBuf;
use std::process::Command;

use crate::system::{self, Result, built_beside, cargo, root};

/// The model of the demo: random weights, until globe ships one that it has trained.
const MODEL: &str = "tests/golden/window112";
/// The first line of the demo.
const WARNING: &str =
    "RANDOM WEIGHTS: this demo's model was never trained, so its answer means nothing.";
const PHOTO: &str = "tests/golden/images/photo.jpg";
/// The last line of the demo.
const PAGE: &str = "The same in a browser: `cargo xtask web demo` builds the page, then open http://localhost:8080/";
/// `globe locate` ends with it when no answer names a known place.
const NOT_LOCATED: i32 = 3;

/// Builds `globe`, answers a photo, and says how to open the page.
pub fn run(photo: Option<&str>) -> Result<()> {
    println!("{WARNING}");
    system::run(&mut cargo(["build", "--workspace", "--locked"]))?;
    let photo = photo.map_or_else(|| root().join(PHOTO), PathBuf::from);
    let mut command = Command::new(built_beside("globe"));
    command.arg("locate").arg(&photo).arg("--model").arg(root().join(MODEL));
    command.args(["--samples", "2", "--max-tokens", "48"]);
    let status = command.status().map_err(|e| format!("cannot start globe: {e}"))?;
    match status.code() {
        Some(0) => {}
        Some(NOT_LOCATED) => {
            println!("Not located, as expected of random weights. Your own model: --model DIR");
        }
        _ => return Err(format!("globe locate failed: {status}")),
    }
    println!("{PAGE}");
    Ok(())
}

/// Errors unless what the demo printed for its own photo starts with the warning and has an answer:
/// under the name of the photo, places or why there is none.
pub fn check(said: &str) -> Result<()> {
    let mut lines = said.lines();
    if lines.next() != Some(WARNING) {
        return Err(format!("the first line of the demo is not `{WARNING}`"));
    }
    let answer = lines.skip_while(|line| !line.ends_with(PHOTO)).nth(1);
    match answer.map(str::trim_start) {
        Some(answer) if answer.starts_with("1. ") || answer.starts_with("not located: ") => Ok(()),
        _ => Err(format!("the demo printed no answer for {PHOTO}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_warns_and_answers() {
        let photo = format!("/somewhere/{PHOTO}");
        for answer in ["  not located: no answer names a place", "  1. France   49, 2  within"] {
            assert_eq!(check(&format!("{WARNING}\n{photo}\n{answer}\n")), Ok(()));
            assert!(check(&format!("{photo}\n{answer}\n{WARNING}\n")).is_err());
        }
        for silent in ["", "\n  of 2 answers: 2 unreadable\n"] {
            let error = check(&format!("{WARNING}\n{photo}{silent}")).unwrap_err();
            assert!(error.contains("no answer"), "{error}");
        }
        assert!(check("").is_err());
    }
}
