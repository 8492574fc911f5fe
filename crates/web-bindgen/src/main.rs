//! What the browser build needs of Rust: the JavaScript side of a wasm module, the shaders as files.

use std::path::Path;
use std::process::ExitCode;

use globe_shaders::Program;
use wasm_bindgen_cli_support::Bindgen;

const USAGE: &str = "usage: web-bindgen MODULE FOLDER [--names]
       web-bindgen --programs FOLDER

  --names      keep the names of functions, for profiles and tests
  --programs   write every WGSL program with its imports, for a browser to compile";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let written = match args.as_slice() {
        ["--programs", folder] => write_programs(Path::new(folder)),
        [module, folder] => write(module, folder, false),
        [module, folder, "--names"] => write(module, folder, true),
        _ => Err(USAGE.to_owned()),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn write(module: &str, folder: &str, names: bool) -> Result<(), String> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).typescript(true).keep_debug(false).remove_name_section(!names);
    bindgen.remove_producers_section(true);
    let web = bindgen.web(true).map_err(|error| format!("{error:#}"))?;
    web.generate(Path::new(folder)).map_err(|error| format!("{module}: {error:#}"))
}

/// One file per program of the kernel table that a browser can run; files of programs that are gone are removed.
fn write_programs(folder: &Path) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(fail)?;
    }
    std::fs::create_dir_all(folder).map_err(fail)?;
    for program in Program::all().into_iter().filter(|program| !program.needs_cooperative()) {
        let file = folder.join(format!("{}.wgsl", program.name()));
        std::fs::write(file, program.header(true) + &program.source()).map_err(fail)?;
    }
    Ok(())
}
