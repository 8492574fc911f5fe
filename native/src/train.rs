//! `globe train`.

mod parts;
mod plan;
mod signals;

use std::fs;
use std::io::{IsTerminal, stderr, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use globe_policy::ModelPolicy;
use globe_train::assemble::{stream, watchers};
use globe_train::checkpoint::{Loaded, RealDisk, Store};
use globe_train::config::{Config, Weights};
use globe_train::data::Part;
use globe_train::trainer::{Ending, Supervised, Task, Trainer};
use globe_train::watch::{Lines, TerminalUi};

use crate::args::TrainArgs;
use crate::console::say;
use crate::exit::{Exit, Fail, OrUsage};
use crate::export;

use signals::Signals;

/// Folders of the finished adapter and of the finished model, in `run.output`.
const ADAPTER: &str = "adapter";
const MODEL: &str = "model";
/// Bytes of tensors in a file of the finished model.
const SHARD_BYTES: u64 = 4095 << 20;

/// What is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Sample answers, score them, make the better ones likelier (GLOBE's method)
    Grpo,
    /// Imitate the `response` of every row
    Sft,
    /// Learn to judge from the yes/no `label` of every row, for the locatability reward
    Reward,
}

/// What checkpoints say they were written by.
const COMMIT: &str = concat!("globe ", env!("GLOBE_VERSION"));

/// Trains, or says what training would take.
pub fn run(args: &TrainArgs) -> Result<Exit, Fail> {
    let mut config = Config::open(&args.config).or_usage()?;
    if let Some(device) = &args.device {
        config.model.device.clone_from(device);
    }
    if args.dry_run {
        return plan::run(args.method, &config);
    }
    let checkpoint = checkpoint(args, &config)?;
    let signals = Signals::install()?;
    let mut parts = parts::load(args.method, &config, args.quiet)?;
    let mut watch = watchers(&config);
    // The view is drawn on standard output; lines go to standard error.
    let has_terminal = stdout().is_terminal() && stderr().is_terminal();
    watch = match config.watch.terminal && has_terminal && !args.quiet {
        true => {
            let ui = TerminalUi::start(signals.stop().clone())?;
            signals.set_terminal(true);
            watch.with(ui)
        }
        false if args.quiet => watch,
        false => watch.with(Lines::new(stderr())),
    };
    let stop = signals.stop();
    let (ending, mut policy) = match args.method {
        Method::Grpo => {
            let data = stream(&config, Part::Train).or_usage()?;
            let rewards = parts.rewards(&config, &data)?;
            let mut trainer =
                Trainer::new(config.clone(), parts.policy, data, rewards).with_commit(COMMIT);
            if let Some(loaded) = &checkpoint {
                trainer.resume(loaded, args.allow_changes).or_usage()?;
            }
            signals.begin_work();
            let ending = explained(trainer.run(&mut watch, stop), args)?;
            (ending, trainer.into_policy())
        }
        Method::Sft | Method::Reward => {
            let mut run = supervised(args, &config, parts.policy, &checkpoint)?;
            signals.begin_work();
            let ending = explained(run.run(&mut watch, stop), args)?;
            (ending, run.into_policy())
        }
    };
    drop(watch); // gives the terminal back before anything is printed
    signals.set_terminal(false);
    finish(&mut policy, &config, ending, args)
}

/// Training with known answers, at its beginning or where the checkpoint stands.
fn supervised(
    args: &TrainArgs,
    config: &Config,
    policy: ModelPolicy,
    checkpoint: &Option<Loaded>,
) -> Result<Supervised<ModelPolicy>, Fail> {
    let task = if args.method == Method::Reward { Task::Judge } else { Task::Imitate };
    let train = stream(config, Part::Train).or_usage()?;
    let eval = match config.data.eval_fraction > 0.0 {
        true => Some(stream(config, Part::Eval).or_usage()?),
        false => None,
    };
    let mut run = Supervised::new(config.clone(), task, policy, train, eval).with_commit(COMMIT);
    if let Some(loaded) = checkpoint {
        run.resume(loaded, args.allow_changes).or_usage()?;
    }
    Ok(run)
}

/// An error with the command that goes on from the checkpoint it left behind.
fn explained(result: globe_train::Result<Ending>, args: &TrainArgs) -> Result<Ending, Fail> {
    result.map_err(|error| match error {
        globe_train::Error::Interrupted { .. } => {
            let again = again(args);
            anyhow!(error).context(format!("training stopped; go on with `{again}`")).into()
        }
        other => other.into(),
    })
}

/// The command that goes on.
fn again(args: &TrainArgs) -> String {
    let method = args.method.to_possible_value().map(|v| v.get_name().to_owned());
    let (method, config) = (method.unwrap_or_default(), args.config.display());
    let device = args.device.as_ref().map_or_else(String::new, |name| format!(" --device {name}"));
    format!("globe train {method} --config {config} --resume{device}")
}

/// Writes the adapter or the model and says what to do with it.
fn finish(
    policy: &mut ModelPolicy,
    config: &Config,
    ending: Ending,
    args: &TrainArgs,
) -> Result<Exit, Fail> {
    if ending == Ending::Stopped {
        say(format_args!("stopped; go on with `{}`", again(args)));
        return Ok(Exit::Interrupted);
    }
    if config.model.weights == Weights::Full {
        return finish_model(config, args);
    }
    let folder = Path::new(&config.run.output).join(ADAPTER);
    policy.adapter()?.save(&mut RealDisk, &folder)?;
    let (folder, base) = (folder.display(), &config.model.path);
    say(format_args!(
        "adapter written to {folder}\n\
         use it: globe convert --from {base} --adapter {folder} --out MODEL\n\
         share it: globe export --from {base} --adapter {folder} --out HF_DIR"
    ));
    Ok(Exit::Success)
}

/// Writes the weights of the last checkpoint as a model folder, in place of one of an earlier end.
fn finish_model(config: &Config, args: &TrainArgs) -> Result<Exit, Fail> {
    let output = Path::new(&config.run.output);
    let store = Store::new(output.join("checkpoints"), config.checkpoint.keep);
    let last = store.steps()?.last().copied().context("no checkpoint to make a model of")?;
    let (folder, next) = (output.join(MODEL), output.join(format!("{MODEL}.next")));
    if next.exists() {
        fs::remove_dir_all(&next).with_context(|| next.display().to_string())?;
    }
    let (base, trained) = (Path::new(&config.model.path), store.path(last));
    let mut go_on = || true;
    let written = export::write(base, &trained, &next, SHARD_BYTES, args.quiet, &mut go_on);
    pollster::block_on(written)??;
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::rename(&next, &folder).with_context(|| folder.display().to_string())?;
    let folder = folder.display();
    say(format_args!(
        "model written to {folder}\n\
         use it: globe locate PHOTO --model {folder}, or pack it with globe convert --from {folder} --out MODEL"
    ));
    Ok(Exit::Success)
}

/// The checkpoint to go on from. Without `--resume`, there must be none to overwrite.
fn checkpoint(args: &TrainArgs, config: &Config) -> Result<Option<Loaded>, Fail> {
    let root = PathBuf::from(&config.run.output).join("checkpoints");
    let store = Store::new(root, config.checkpoint.keep);
    let steps = store.steps()?;
    match (&args.resume, steps.last()) {
        (None, None) => Ok(None),
        (None, Some(step)) => {
            let output = &config.run.output;
            Err(Fail::usage(anyhow!(
                "{output} holds a run up to step {step}: pass --resume to go on, or another run.output"
            )))
        }
        (Some(None), Some(_)) => Ok(store.newest().or_usage()?),
        (Some(None), None) => Err(Fail::usage(anyhow!(
            "nothing to resume: {} has no checkpoint",
            store.root().display()
        ))),
        (Some(Some(step)), _) => Ok(Some(store.load(*step).or_usage()?)),
    }
}
