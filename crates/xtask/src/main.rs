//! Project commands: `cargo xtask demo`, `cargo xtask test`.

mod demo;
mod system;
mod test;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <command>

  demo [PHOTO]   build globe and answer a photo, from a fresh clone
  test           every check that decides whether a change lands
  test STEP…     only these steps: fmt typos test demo clippy wasm doc deny";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["demo"] => demo::run(None),
        ["demo", photo] => demo::run(Some(photo)),
        ["test", steps @ ..] => test::run(steps),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
