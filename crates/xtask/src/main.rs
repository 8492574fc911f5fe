//! Project commands: `cargo xtask demo`, `cargo xtask test`.

mod demo;
mod serve;
mod system;
mod test;
mod web;

use std::io::IsTerminal;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <command>

  demo           build globe and answer a photo, from a fresh clone; on a terminal, then serve the page
  demo PHOTO     answer that photo
  web            build the browser package and the demo page
  web demo [DIR] serve the demo page on port 8080 (or PORT), with the model of DIR
  web test       test both in Chromium
  web test-7b    load 5 GB of a 7B model's shape into a mocked GPU, minutes
  web release    build what is shipped, and check its size
  web size       the same without the last optimisation, which takes minutes
  test           every check that decides whether a change lands
  test STEP…     only these steps: fmt typos test peers demo web clippy wasm doc deny size";

/// Of the demo page, unless the environment names another.
const PORT: u16 = 8080;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["demo"] => demo::run(None).and_then(|()| page()),
        ["demo", photo] => demo::run(Some(photo)),
        ["web"] => web::build(),
        ["web", "demo"] => port().and_then(|port| web::demo(None, port)),
        ["web", "demo", model] => {
            port().and_then(|port| web::demo(Some(std::path::Path::new(model)), port))
        }
        ["web", "size"] => web::size(),
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

/// Serves the demo page if somebody is there to open it.
fn page() -> system::Result<()> {
    if !std::io::stdout().is_terminal() {
        return Ok(());
    }
    println!("Building the page, which takes some minutes the first time. Ctrl-C ends it.");
    port().and_then(|port| web::demo(None, port))
}

/// Where the demo page is served; 0 takes a port that is free.
fn port() -> system::Result<u16> {
    match std::env::var("PORT") {
        Ok(text) => text.parse().map_err(|_| format!("PORT is `{text}`, expected 0 to 65535")),
        Err(_) => Ok(PORT),
    }
}
