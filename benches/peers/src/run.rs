//! One run: a model, every peer in its own process, and what came of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::args::Cli;
use crate::error::{Error, Result};
use crate::peer::{Job, Peer};
use crate::process::json_of;
use crate::report::{Entry, Outcome, Report};
use crate::tower::Tower;
use crate::{machine, plot, table, weights};

/// Measures and writes.
///
/// # Errors
/// If the model, the report or the plot cannot be written, or no peer could be measured.
pub fn run(cli: &Cli) -> Result<()> {
    let report = measure(cli)?;
    print!("{}", table::markdown(&report));
    if let Some(path) = &cli.json {
        let mut text = serde_json::to_string_pretty(&report)
            .map_err(|source| Error::Answer { program: "peers".to_string(), source })?;
        text.push('\n');
        write(path, &text)?;
    }
    if let Some(path) = &cli.plot {
        write(path, &plot::svg(&report))?;
    }
    let measured = report.peers.iter().any(|entry| entry.outcome.measured().is_some());
    if measured { Ok(()) } else { Err(Error::NothingMeasured) }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|source| Error::File {
        what: "write",
        path: path.into(),
        source,
    })
}

fn measure(cli: &Cli) -> Result<Report> {
    let temporary = std::env::temp_dir();
    let folder = tempfile::Builder::new().prefix("globe-peers-").tempdir_in(&temporary).map_err(
        |source| Error::File { what: "create a folder in", path: temporary.clone(), source },
    )?;
    let gguf = folder.path().join("random.gguf");
    let reads_gguf = cli.peers.iter().any(|peer| *peer != Peer::Globe);
    let mut gguf_bytes = 0;
    if reads_gguf {
        eprintln!("writing random weights of {}", cli.work.shape.name());
        gguf_bytes = weights::write(&gguf, cli.work.shape, cli.seed)?;
    }
    let tower = Tower::within(folder.path());
    if cli.work.image > 0 && cli.peers.iter().any(|peer| peer.reads_towers()) {
        gguf_bytes += tower.write(cli.work.shape, cli.seed)?;
    }
    let peers = Peer::ALL.map(|peer| Entry { peer, outcome: outcome(cli, peer, &gguf, &tower) });
    Ok(Report {
        date: machine::date(),
        commit: machine::commit(),
        cpu: machine::cpu(),
        cpu_threads: machine::threads(),
        compiled_for: machine::compiled_for(),
        work: cli.work.clone(),
        seed: cli.seed,
        gguf_bytes,
        peers: peers.into(),
    })
}

/// Runs a peer in a process of its own; what goes wrong there is its outcome.
fn outcome(cli: &Cli, peer: Peer, gguf: &Path, tower: &Tower) -> Outcome {
    if !cli.peers.contains(&peer) {
        return Outcome::NotRun(Error::NotAsked.to_string());
    }
    eprintln!("measuring {peer}");
    let job = Job {
        peer,
        work: cli.work.clone(),
        gguf: gguf.to_path_buf(),
        tower: tower.clone(),
        globe: cli.globe.clone().unwrap_or_else(machine::globe),
        globe_device: cli.globe_device.clone(),
        vulkan_device: cli.vulkan_device,
    };
    let outcome = match child(&job) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::NotRun(error.to_string()),
    };
    if let Outcome::NotRun(reason) = &outcome {
        eprintln!("{peer}: {reason}");
    }
    outcome
}

fn child(job: &Job) -> Result<Outcome> {
    let text = serde_json::to_string(job)
        .map_err(|source| Error::Answer { program: "peers".to_string(), source })?;
    let program = PathBuf::from("peers");
    let program = std::env::current_exe().map_err(|source| Error::Start { program, source })?;
    let threads = job.work.threads.to_string();
    let mut command = Command::new(program);
    command.arg("--job").arg(text);
    // Globe and its driver take what threads they want: only the libraries that run here are told.
    if job.peer != Peer::Globe {
        command.env("CANDLE_NUM_THREADS", &threads).env("RAYON_NUM_THREADS", &threads);
    }
    // llama.cpp passes over software devices unless they are named.
    if job.peer == Peer::LlamaVulkan {
        command.env("GGML_VK_VISIBLE_DEVICES", job.vulkan_device.to_string());
    }
    json_of(command, &job.peer.to_string())
}

/// Runs a job in this process and prints its outcome.
///
/// # Errors
/// [`Error::Answer`] if this is not a job.
pub fn run_job(text: &str) -> Result<()> {
    let failed = |source| Error::Answer { program: "peers".to_string(), source };
    let job: Job = serde_json::from_str(text).map_err(failed)?;
    let outcome = match job.run() {
        Ok(measured) => Outcome::Measured(Box::new(measured)),
        Err(error) => Outcome::NotRun(error.to_string()),
    };
    println!("{}", serde_json::to_string(&outcome).map_err(failed)?);
    Ok(())
}
