//! Takes comments and indentation out of the kernels: a browser downloads them with the module.

use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names a folder"));
    // A new file comes with a line of the tables.
    println!("cargo::rerun-if-changed=src");
    for folder in [".", "shared"] {
        fs::create_dir_all(out.join(folder)).unwrap_or_else(|e| panic!("{}: {e}", out.display()));
        let files = fs::read_dir(folder).unwrap_or_else(|e| panic!("{folder}: {e}"));
        for path in files.map(|file| file.expect("a readable folder").path()) {
            if path.extension().is_some_and(|ending| ending == "wgsl") {
                write_bare(&path, &out.join(folder));
            }
        }
    }
}

fn write_bare(path: &Path, folder: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let copy = folder.join(path.file_name().expect("it was listed"));
    fs::write(&copy, bare(&text)).unwrap_or_else(|e| panic!("{}: {e}", copy.display()));
}

/// The lines of code. The first line stays whatever it is: profiles and captures know a kernel by it.
fn bare(text: &str) -> String {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let code = rest.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code).trim());
    let lines = std::iter::once(first).chain(code.filter(|line| !line.is_empty()));
    lines.flat_map(|line| [line, "\n"]).collect()
}
