//! Names the version with the commit that the program is built from, as `GLOBE_VERSION`.

use std::process::Command;

fn main() {
    // Every commit and every switch of branches adds a line to this file.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let version = env!("CARGO_PKG_VERSION");
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        Some(commit) => println!("cargo::rustc-env=GLOBE_VERSION={version} ({commit})"),
        None => println!("cargo::rustc-env=GLOBE_VERSION={version}"), // not built in a repository
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
