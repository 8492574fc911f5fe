//! The browser package: building, testing in Debian's Chromium, the demo, and what it weighs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::serve::{self, Site};
use crate::system::{self, Result, cargo, is_installed, is_root, root};

/// The model of the demo: random weights, until globe ships one that it has trained.
const MODEL: &str = "tests/golden/window112";

/// Builds module, package and demo site for the edit loop: quick, with the names of functions.
pub fn build() -> Result<()> {
    module("dev", &["--names"])?;
    package()
}

/// Runs every browser test.
pub fn test() -> Result<()> {
    need_chromium()?;
    build()?;
    npm(&["run", "types"])?;
    npm(&["test"])
}

/// Builds what is shipped, makes the module small, and errors if it is above its budget.
pub fn release() -> Result<()> {
    module("web", &[])?;
    npm_packages()?;
    let wasm = "pkg/globe_web_bg.wasm";
    let optimise = ["node_modules/.bin/wasm-opt", "-Oz", "--all-features", wasm, "-o", wasm];
    system::run(Command::new("node").args(optimise).current_dir(folder()))?;
    package()?;
    system::run(Command::new("node").arg("scripts/size.mjs").current_dir(folder()))
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
    let target = ["--target", "wasm32-unknown-unknown", "--profile", profile];
    let build = ["build", "--package", "globe-web", "--locked"].into_iter().chain(target);
    system::run(&mut cargo(build))?;
    let built = if profile == "dev" { "debug" } else { profile };
    let wasm = self::target().join("wasm32-unknown-unknown").join(built).join("globe_web.wasm");
    let mut bindgen = cargo(["run", "--package", "web-bindgen", "--locked", "--"]);
    system::run(bindgen.arg(wasm).arg(folder().join("pkg")).args(bindgen_options))
}

/// Bundles package and demo site.
fn package() -> Result<()> {
    npm_packages()?;
    npm(&["run", "build"])?;
    system::run(Command::new("node").arg("scripts/site.mjs").current_dir(folder()))
}

fn npm_packages() -> Result<()> {
    if !is_installed("npm") {
        return Err(
            "npm is not installed; the page needs Node 20 or later:\n  apt-get install npm".into(),
        );
    }
    // npm writes this file last: it is as new as the lock when the packages are complete.
    let modified = |path: &str| std::fs::metadata(folder().join(path)).and_then(|m| m.modified());
    match (modified("node_modules/.package-lock.json"), modified("package-lock.json")) {
        (Ok(installed), Ok(wanted)) if installed >= wanted => Ok(()),
        _ => npm(&["ci", "--no-audit", "--no-fund"]),
    }
}

fn npm(args: &[&str]) -> Result<()> {
    system::run(Command::new("npm").args(args).current_dir(folder()))
}

/// Makes sure that a browser is there: installs Debian's when root, else says how.
fn need_chromium() -> Result<()> {
    if std::env::var_os("CHROMIUM").is_some() || Path::new("/usr/bin/chromium").exists() {
        return Ok(());
    }
    const BY_HAND: &str = "apt-get install --no-install-recommends chromium";
    if !is_root() || !is_installed("apt-get") {
        return Err(format!(
            "no Chromium; the browser tests need one. On Debian:\n  {BY_HAND}\nElsewhere, name it in the variable CHROMIUM."
        ));
    }
    system::run(Command::new("apt-get").arg("update"))?;
    let packages = ["install", "-y", "--no-install-recommends", "chromium"];
    system::run(Command::new("apt-get").args(packages))
        .map_err(|e| format!("{e}\ninstall a browser by hand:\n  {BY_HAND}"))
}
