//! `web-bindgen MODULE FOLDER [--names]`: writes the JavaScript side of a wasm module.

use std::path::Path;
use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

const USAGE: &str = "usage: web-bindgen MODULE FOLDER [--names]

  --names   keep the names of functions, for profiles and tests";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let written = match args.as_slice() {
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
