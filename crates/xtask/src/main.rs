//! Project commands: `cargo xtask demo`, `cargo xtask test`.

mod demo;
mod serve;
mod system;
mod test;
mod web;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <command>

  demo [PHOTO]   build globe and answer a photo, from a fresh clone
  web            build the browser package and the demo page
  web demo [DIR] serve the demo page on port 8080, with the model of DIR
  web test       test both in Chromium
  web test-7b    load 5 GB of a 7B model's shape into a mocked GPU, minutes
  web release    build what is shipped, and check its size
  test           every check that decides whether a change lands
  test STEP…     only these steps: fmt typos test demo web clippy wasm doc deny";

/// Of the demo page.
const PORT: u16 = 8080;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["demo"] => demo::run(None),
        ["demo", photo] => demo::run(Some(photo)),
        ["web"] => web::build(),
        ["web", "demo"] => web::demo(None, PORT),
        ["web", "demo", model] => web::demo(Some(std::path::Path::new(model)), PORT),
        ["web", "test"] => web::test(),
        ["web", "test-7b"] => web::test_7b(),
        ["web", "release"] => web::release(),
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
