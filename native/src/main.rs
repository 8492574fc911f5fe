//! The globe command line: arguments, files and signals. Everything else is in the libraries.

mod adapter;
mod args;
mod bench;
mod compare;
mod console;
mod convert;
mod data;
mod devices;
mod exit;
mod export;
mod geocode;
mod input;
mod inspect;
mod intact;
mod interrupt;
mod locate;
mod logits;
mod memory;
mod output;
mod progress;
mod sink;
mod train;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    console::quiet_drivers();
    let cli = Cli::parse();
    exit::run(|| match cli.command {
        Command::Locate(args) => locate::run(&args),
        Command::Geocode(args) => geocode::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Logits(args) => logits::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Completions(args) => args::completions(&args),
    })
}
