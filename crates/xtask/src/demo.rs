//! `cargo xtask demo`: from a fresh clone to an answered photo.

use std::path::PathBuf;
use std::process::Command;

use crate::system::{self, Result, cargo, root};

/// The model of the demo: random weights, until globe ships one that it has trained.
const MODEL: &str = "tests/golden/window112";
const PHOTO: &str = "tests/golden/images/photo.jpg";
/// `globe locate` ends with it when no answer names a known place.
const NOT_LOCATED: i32 = 3;

/// Builds `globe` and answers a photo.
pub fn run(photo: Option<&str>) -> Result<()> {
    println!("RANDOM WEIGHTS: this demo's model was never trained, so its answer means nothing.");
    system::run(&mut cargo(["build", "--workspace", "--locked"]))?;
    let photo = photo.map_or_else(|| root().join(PHOTO), PathBuf::from);
    let mut command = Command::new(globe_binary());
    command.arg("locate").arg(&photo).arg("--model").arg(root().join(MODEL));
    command.args(["--samples", "2", "--max-tokens", "48"]);
    let status = command.status().map_err(|e| format!("cannot start globe: {e}"))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(NOT_LOCATED) => {
            println!("Not located, as expected of random weights. Your own model: --model DIR");
            Ok(())
        }
        _ => Err(format!("globe locate failed: {status}")),
    }
}

fn globe_binary() -> PathBuf {
    let folder = std::env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from));
    folder.unwrap_or_default().join(format!("globe{}", std::env::consts::EXE_SUFFIX))
}
