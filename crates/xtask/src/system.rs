//! Other programs: running them, and what the tests need installed.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What went wrong, for a person to read.
pub type Result<T> = std::result::Result<T, String>;

/// The root of the repository: the one `cargo xtask` was called in. Clones that share a target
/// folder also share this program, so where it was compiled says little.
pub fn root() -> PathBuf {
    let called_in = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = called_in.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).to_owned());
    here.ancestors().nth(2).unwrap_or(&here).to_owned()
}

/// A `cargo` command in the repository, with the cargo that runs this program.
pub fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(root());
    command
}

/// A program of this workspace, which was built beside this one.
pub fn built_beside(name: &str) -> PathBuf {
    let folder = std::env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from));
    folder.unwrap_or_default().join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// Runs a command and errors unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    eprintln!("$ {shown}");
    let status = command.status().map_err(|e| format!("cannot start `{shown}`: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{shown}` failed: {status}")) }
}

fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Whether a program answers `--version`.
pub fn is_installed(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|o| o.status.success())
}

/// What the module of the tab is compiled for.
pub const WASM: &str = "wasm32-unknown-unknown";

/// Makes sure that the toolchain can compile for the tab: `rust-toolchain.toml` asks for it, but rustup adds nothing
/// to a toolchain that is linked, or where it was told to install nothing by itself.
pub fn need_wasm() -> Result<()> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let libraries = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", WASM])
        .current_dir(root())
        .output();
    let folder = libraries.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    if folder.is_ok_and(|folder| Path::new(&folder).is_dir()) {
        return Ok(());
    }
    run(Command::new("rustup").args(["target", "add", WASM]).current_dir(root())).map_err(|e| {
        format!(
            "{e}
the module of the tab needs Rust's libraries for {WASM}"
        )
    })
}

/// The setting of cargo by which a module for the tab names the sources of its packages without
/// the folders of the machine that compiled it.
pub fn shortened_paths() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|user| user.join(".cargo")));
    let sources = home.unwrap_or_default().join("registry").join("src").join("");
    let flag = format!("--remap-path-prefix={}=", sources.display());
    format!("target.{WASM}.rustflags=[{flag:?}]")
}

/// Makes sure that some Vulkan driver is there: installs Mesa's software one when root on Debian.
pub fn need_vulkan() -> Result<()> {
    if has_vulkan_driver() {
        return Ok(());
    }
    install("a Vulkan driver, which the kernel tests need", &["mesa-vulkan-drivers", "libvulkan1"])
}

/// Installs Debian packages when root; otherwise an error with the command that does.
pub fn install(what: &str, packages: &[&str]) -> Result<()> {
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !is_root() || !is_installed("apt-get") {
        return Err(format!("this machine lacks {what}. On Debian, as root:\n  {by_hand}"));
    }
    run(Command::new("apt-get").arg("update"))?;
    run(Command::new("apt-get").args(["install", "-y", "--no-install-recommends"]).args(packages))
        .map_err(|e| format!("{e}\ninstall {what}, by hand:\n  {by_hand}"))
}

fn has_vulkan_driver() -> bool {
    if !cfg!(target_os = "linux") || std::env::var_os("VK_DRIVER_FILES").is_some() {
        return true; // elsewhere the driver comes with the system
    }
    let folders = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];
    let filled =
        |folder: &&str| std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some());
    folders.iter().any(filled)
}

/// Whether packages can be installed.
fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|o| o.stdout.trim_ascii() == b"0")
}
