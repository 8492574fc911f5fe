//! `cargo xtask test`: the checks, quickest first.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::demo;
use crate::system::{self, Result, cargo, is_installed, need_vulkan, root};
use crate::web;

/// Pinned, because a new version knows new words.
const TYPOS: &str = "typos==1.52.0";

/// What became of a step that did not fail.
enum Done {
    Passed,
    Skipped(&'static str),
}

type Step = (&'static str, fn() -> Result<Done>);

const STEPS: &[Step] = &[
    ("fmt", fmt),
    ("typos", typos),
    ("test", test),
    ("peers", peers),
    ("demo", demo),
    ("web", || passed(web::test())),
    ("clippy", clippy),
    ("wasm", wasm),
    ("doc", doc),
    ("deny", deny),
    // Minutes of link-time optimisation, so only after all that is quicker found out.
    ("size", || passed(web::size())),
];

/// Runs the named steps, or all.
pub fn run(names: &[&str]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|n| !STEPS.iter().any(|(step, _)| step == *n)) {
        let known: Vec<_> = STEPS.iter().map(|(step, _)| *step).collect();
        return Err(format!("unknown step `{unknown}`; known: {}", known.join(" ")));
    }
    let mut report = String::new();
    for (name, step) in STEPS.iter().filter(|(n, _)| names.is_empty() || names.contains(n)) {
        let start = Instant::now();
        let done = step().map_err(|e| format!("{report}{name}: {e}"))?;
        let outcome = match done {
            Done::Passed => "passed".to_owned(),
            Done::Skipped(why) => format!("SKIPPED: {why}"),
        };
        report += &format!("{name:8} {:5.0} s  {outcome}\n", start.elapsed().as_secs_f32());
    }
    eprint!("\n{report}");
    Ok(())
}

fn passed(result: Result<()>) -> Result<Done> {
    result.map(|()| Done::Passed)
}

fn fmt() -> Result<Done> {
    passed(system::run(&mut cargo(["fmt", "--all", "--check"])))
}

/// All targets, so that features unify as for the tests and Burn is built once.
fn build() -> Result<()> {
    system::run(&mut cargo(["build", "--workspace", "--all-targets", "--locked"]))
}

fn test() -> Result<Done> {
    need_vulkan()?;
    // The tests of the command line run the binary, which `cargo test` alone may leave out of date.
    build()?;
    passed(system::run(&mut cargo(["test", "--workspace", "--locked"])))
}

/// Tests that `benches/peers` still reads what `globe bench` prints; the other programs are not built.
fn peers() -> Result<Done> {
    need_vulkan()?;
    build()?;
    let mut test = cargo(["test", "--manifest-path", "benches/peers/Cargo.toml"]);
    test.args(["--no-default-features", "--locked"]).env("GLOBE", system::built_beside("globe"));
    passed(system::run(&mut test))
}

/// Runs `cargo xtask demo` and reads what it says.
fn demo() -> Result<Done> {
    need_vulkan()?;
    let exe = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    eprintln!("$ xtask demo");
    let demo = Command::new(exe).arg("demo").stderr(Stdio::inherit()).output();
    let demo = demo.map_err(|e| format!("cannot start `xtask demo`: {e}"))?;
    let said = String::from_utf8_lossy(&demo.stdout);
    print!("{said}");
    if !demo.status.success() {
        return Err(format!("`xtask demo` failed: {}", demo.status));
    }
    passed(demo::check(&said))
}

fn clippy() -> Result<Done> {
    let args = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    passed(system::run(&mut cargo(args)))
}

fn wasm() -> Result<Done> {
    system::need_wasm()?;
    let target = ["--target", system::WASM];
    let args = ["clippy", "--package", "globe-web", "--locked"].into_iter().chain(target);
    passed(system::run(&mut cargo(args.chain(["--", "-D", "warnings"]))))
}

fn doc() -> Result<Done> {
    let mut command = cargo(["doc", "--workspace", "--no-deps", "--locked"]);
    passed(system::run(command.env("RUSTDOCFLAGS", "-D warnings")))
}

fn typos() -> Result<Done> {
    let program = match is_installed("typos") {
        true => "typos".into(),
        false => match install_typos() {
            Ok(program) => program,
            Err(_) => return Ok(Done::Skipped("typos is not installed; pip install typos")),
        },
    };
    passed(system::run(Command::new(program).current_dir(root())))
}

/// The spelling checker as a wheel, in a Python environment of its own beside this program.
fn install_typos() -> Result<PathBuf> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let folder = exe.with_file_name("typos-env");
    let program = folder.join("bin/typos");
    if !program.exists() {
        system::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let pip = folder.join("bin/pip");
        system::run(Command::new(pip).args(["install", "--quiet", TYPOS]))?;
    }
    Ok(program)
}

fn deny() -> Result<Done> {
    if !is_installed("cargo-deny") {
        return Ok(Done::Skipped("cargo-deny is not installed; cargo install cargo-deny"));
    }
    passed(system::run(&mut cargo(["deny", "check", "bans", "licenses", "sources"])))
}
