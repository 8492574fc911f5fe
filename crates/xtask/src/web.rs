//! The browser package: building, testing in Debian's Chromium, the demo, and what it weighs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::serve::{self, Site};
use crate::system::{self, Result, built_beside, cargo, is_installed, root};

/// The model of the demo: random weights, until globe ships one that it has trained.
const MODEL: &str = "tests/golden/window112";

/// The profile of what visitors download.
const SHIPPED: &str = "web";

/// Builds module, package and demo site for the edit loop: quick, with the names of functions.
pub fn build() -> Result<()> {
    module("dev", &["--names"])?;
    package()
}

/// Runs every browser test; some compare the tab with the native binary.
pub fn test() -> Result<()> {
    need_node()?;
    need_chromium()?;
    system::run(&mut cargo(["build", "--workspace", "--locked"]))?;
    build()?;
    kernel_tests()?;
    npm(&["run", "types"])?;
    let programs = [("GLOBE", built_beside("globe")), ("XTASK", built_beside("xtask"))];
    system::run(npm_command(&["test"]).envs(programs))
}

/// Loads a model of the published 7B sizes, every layer of it, which the other tests do with one.
pub fn test_7b() -> Result<()> {
    need_node()?;
    need_chromium()?;
    build()?;
    let mut test = Command::new("node");
    test.args(["--test", "tests/large.test.mjs"]).envs([("LAYERS", "28"), ("BLOCKS", "32")]);
    system::run(test.current_dir(folder()))
}

/// Builds the module as it is shipped but for the last optimisation, which makes it smaller still, and
/// errors if it is above its budget or answers otherwise.
pub fn size() -> Result<()> {
    module(SHIPPED, &[])?;
    package()?;
    check_shipped()
}

/// Weighs the module at hand, and lets it answer the goldens: it is compiled otherwise than the one of the other tests.
fn check_shipped() -> Result<()> {
    system::run(Command::new("node").arg("scripts/size.mjs").current_dir(folder()))?;
    need_chromium()?;
    let mut goldens = Command::new("node");
    goldens.args(["--test", "--test-name-pattern", "match the goldens", "tests/engine.test.mjs"]);
    system::run(goldens.current_dir(folder()))
}

/// What Rust compiles for, and every browser with WebGPU has. With all features that it knows, `wasm-opt` writes a module
/// that browsers refuse.
const WASM_FEATURES: [&str; 7] = [
    "--enable-bulk-memory",
    "--enable-bulk-memory-opt",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
];

/// Builds what is shipped, makes the module small, and errors if it is above its budget.
pub fn release() -> Result<()> {
    module(SHIPPED, &[])?;
    npm_packages()?;
    let wasm = "pkg/globe_web_bg.wasm";
    let optimise = ["node_modules/.bin/wasm-opt", "-Oz", wasm, "-o", wasm];
    system::run(Command::new("node").args(optimise).args(WASM_FEATURES).current_dir(folder()))?;
    package()?;
    check_shipped()
}

/// Serves the demo page with a model folder: packed, or in the Hugging Face layout.
pub fn demo(model: Option<&Path>, port: u16) -> Result<()> {
    build()?;
    let site = folder().join("site");
    let listed = target().join("web-demo-model");
    if model.is_none() {
        println!(
            "RANDOM WEIGHTS: this demo's model was never trained, so its answers mean nothing."
        );
        let mut list = Command::new("node");
        list.arg("scripts/list-files.mjs").arg(root().join(MODEL)).arg(&listed);
        system::run(list.current_dir(folder()))?;
        std::fs::write(listed.join("about.json"), "{\"random\":true}\n")
            .map_err(|e| format!("cannot write {}: {e}", listed.display()))?;
    }
    let model = model.map_or(listed, Path::to_owned);
    serve::run(Site(vec![("/models/demo/", model), ("/", site)]), port)
}

fn folder() -> PathBuf {
    root().join("web")
}

/// The target folder of the build that made this program.
fn target() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors().nth(2).map(Path::to_owned).unwrap_or_else(|| root().join("target"))
}

/// Compiles the module, and writes its JavaScript side to `web/pkg`.
fn module(profile: &str, bindgen_options: &[&str]) -> Result<()> {
    let package = folder().join("pkg");
    bind("globe-web", profile, &package, bindgen_options)?;
    // Not shipped: the module has its own copy. The tests give these to the browser's compiler.
    system::run(
        Command::new(built_beside("web-bindgen")).arg("--programs").arg(package.join("programs")),
    )
}

/// Compiles the kernel tests for the tab. With gradients in Burn, which the module goes without,
/// so never in one build with it.
fn kernel_tests() -> Result<()> {
    bind("globe-browser-tests", "dev", &folder().join("pkg/kernel-tests"), &["--names"])
}

/// Compiles a package for wasm32, and writes its JavaScript side to a folder.
fn bind(name: &str, profile: &str, folder: &Path, options: &[&str]) -> Result<()> {
    system::need_wasm()?;
    let target = ["--target", system::WASM, "--profile", profile];
    let build = ["build", "--package", name, "--locked"].into_iter().chain(target);
    let mut build = cargo(build);
    if profile == SHIPPED {
        build.arg("--config").arg(system::shortened_paths());
    }
    system::run(&mut build)?;
    let built = if profile == "dev" { "debug" } else { profile };
    let wasm = self::target().join(system::WASM).join(built);
    let wasm = wasm.join(name.replace('-', "_")).with_extension("wasm");
    // Features unify as in the workspace, so that the tests do not build it twice.
    system::run(&mut cargo(["build", "--workspace", "--bin", "web-bindgen", "--locked"]))?;
    system::run(Command::new(built_beside("web-bindgen")).arg(wasm).arg(folder).args(options))
}

/// Bundles package and demo site.
fn package() -> Result<()> {
    npm_packages()?;
    npm(&["run", "build"])?;
    system::run(Command::new("node").arg("scripts/site.mjs").current_dir(folder()))
}

fn npm_packages() -> Result<()> {
    need_node()?;
    // npm writes this file last: it is as new as the lock when the packages are complete.
    let modified = |path: &str| std::fs::metadata(folder().join(path)).and_then(|m| m.modified());
    match (modified("node_modules/.package-lock.json"), modified("package-lock.json")) {
        (Ok(installed), Ok(wanted)) if installed >= wanted => Ok(()),
        _ => npm(&["ci", "--no-audit", "--no-fund"]),
    }
}

fn npm(args: &[&str]) -> Result<()> {
    system::run(&mut npm_command(args))
}

fn npm_command(args: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.args(args).current_dir(folder());
    command
}

/// Makes sure that Node is there, and new enough for the tools of the page.
fn need_node() -> Result<()> {
    /// What Vite asks for. Debian 12 has an older one.
    const OLDEST: [u32; 2] = [20, 19];
    if node_version().is_none() || !is_installed("npm") {
        system::install("Node, which builds the page", &["nodejs", "npm"])?;
    }
    match node_version() {
        Some(found) if found >= OLDEST => Ok(()),
        found => Err(format!(
            "the page needs Node {}.{} or later, found {}: https://nodejs.org/en/download",
            OLDEST[0],
            OLDEST[1],
            found.map_or("none".to_owned(), |[major, minor]| format!("{major}.{minor}"))
        )),
    }
}

/// Major and minor version.
fn node_version() -> Option<[u32; 2]> {
    let output = Command::new("node").arg("--version").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    let mut numbers = version.strip_prefix('v')?.split('.').map(str::parse);
    Some([numbers.next()?.ok()?, numbers.next()?.ok()?])
}

/// Makes sure that a browser is there; the tests take `CHROMIUM`, or else Debian's.
fn need_chromium() -> Result<()> {
    if std::env::var_os("CHROMIUM").is_some() || Path::new("/usr/bin/chromium").exists() {
        return Ok(());
    }
    let what = "Chromium, which the browser tests run in (elsewhere, name it in CHROMIUM)";
    system::install(what, &["chromium"])
}
