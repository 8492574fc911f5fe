//! `peers`: globe beside llama.cpp and candle, in one run on one machine.

mod args;
mod error;
mod gguf;
mod machine;
mod peer;
mod plot;
mod process;
mod random;
mod report;
mod run;
mod shape;
mod stats;
mod table;
mod tower;
mod weights;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let result = match &cli.job {
        Some(job) => run::run_job(job),
        None => run::run(&cli),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
