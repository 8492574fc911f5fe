//! `globe export`.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};
use globe_format::export::{ExportJob, Exported, export};
use globe_format::packed::{MANIFEST_FILE, Manifest};
use globe_format::{Error, Folder, read_file};
use globe_model::Model;

use crate::adapter;
use crate::args::ExportArgs;
use crate::console::{print, say};
use crate::exit::{Exit, Fail, OrUsage};
use crate::inspect::bytes;
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// Endings of the small files of a checkpoint: configuration, tokenizer, templates, code.
const COPIED_ENDINGS: [&str; 6] = ["json", "jinja", "txt", "model", "tiktoken", "py"];

/// Beginnings of the names of files that have to go with the weights.
const COPIED_BEGINNINGS: [&str; 3] = ["LICENSE", "LICENCE", "NOTICE"];

/// Merges and writes.
pub fn run(args: &ExportArgs) -> Result<Exit, Fail> {
    let interrupt = Interrupt::install()?;
    interrupt.begin_work();
    let exported = match pollster::block_on(merge(args, &interrupt))? {
        Ok(exported) => exported,
        Err(Error::Cancelled) => {
            say(format_args!("interrupted; nothing was written"));
            return Ok(Exit::Interrupted);
        }
        // Writing fails for reasons outside of the input; all else its owner can mend.
        Err(error @ (Error::DiskFull { .. } | Error::WriteFile { .. })) => return Err(error.into()),
        Err(error) => return Err(Fail::usage(error)),
    };
    print(&summary(&args.out, &exported)).context("cannot write to standard output")?;
    Ok(Exit::Success)
}

/// Opens base and what was trained and writes both; the inner error is that of the writing.
async fn merge(args: &ExportArgs, interrupt: &Interrupt) -> Result<Result<Exported, Error>, Fail> {
    let mut go_on = || !interrupt.cancel().is_cancelled();
    let ExportArgs { from, adapter, out, shard_mb, quiet } = args;
    write(from, adapter, out, shard_mb << 20, *quiet, &mut go_on).await
}

/// Writes the base `from` with `trained`, an adapter or a checkpoint of all weights, to `out`.
pub async fn write(
    from: &Path,
    trained: &Path,
    out: &Path,
    shard_bytes: u64,
    quiet: bool,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Result<Exported, Error>, Fail> {
    let base = Folder::open(from).or_usage()?;
    let context = || format!("cannot use {}", from.display());
    refuse_packed(&base).await.with_context(context).or_usage()?;
    let (config, tensors) = Model::checkpoint(&base).await.with_context(context).or_usage()?;
    let files = small_files(&base).await.with_context(context).or_usage()?;
    let job = ExportJob { files, shard_bytes };
    let progress = Progress::bytes("exporting", quiet);
    let mut on_bytes = |done: u64, all: u64| {
        progress.set(done as usize, all as usize);
        go_on()
    };
    let exported = if adapter::is_full(trained) {
        let context = || format!("cannot use the weights of {}", trained.display());
        let replaced = adapter::replace(&config, tensors, trained).await;
        export(&job, &replaced.with_context(context).or_usage()?, out, &mut on_bytes).await
    } else {
        let folder = adapter::folder(trained)?;
        let context = || format!("cannot merge {}", trained.display());
        let merged = adapter::merge(&config, tensors, &folder).await;
        let merged = merged.with_context(context).or_usage()?;
        if !quiet {
            progress.suspend(|| adapter::note_other_base(merged.adapter(), from));
        }
        export(&job, &merged, out, &mut on_bytes).await
    };
    progress.clear();
    Ok(exported)
}

/// What was rounded to few bits is no base: an adapter is merged into the weights it came from.
async fn refuse_packed(base: &Folder) -> anyhow::Result<()> {
    let Some(json) = read_file(base, MANIFEST_FILE).await? else { return Ok(()) };
    let Ok(manifest) = Manifest::parse(&json) else { return Ok(()) };
    let Manifest { bits, source, .. } = manifest;
    let names: Vec<_> = source.inputs.iter().map(|file| file.name.as_str()).collect();
    let names = names.join(", ");
    Err(anyhow!(
        "a packed folder, whose weights are rounded to {bits} bits; \
         pass the Hugging Face folder that it was converted from, with {names}"
    ))
}

/// The files of a checkpoint that are not weights.
async fn small_files(base: &Folder) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(base.path())? {
        let entry = entry?;
        // Those of a download cache are links.
        let is_file = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file());
        let Some(name) = entry.file_name().to_str().filter(|_| is_file).map(str::to_owned) else {
            continue;
        };
        if is_copied(&name) {
            files.extend(read_file(base, &name).await?.map(|bytes| (name, bytes)));
        }
    }
    files.sort();
    Ok(files)
}

fn is_copied(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    let is_small = ending.is_some_and(|ending| COPIED_ENDINGS.contains(&ending));
    let is_index = name.ends_with(".index.json");
    let is_legal = COPIED_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
    !name.starts_with('.') && !is_index && (is_small || is_legal)
}

fn summary(out: &Path, exported: &Exported) -> String {
    let Exported { n_tensors, n_merged, total_bytes, n_shards } = exported;
    let (out, bytes) = (out.display(), bytes(*total_bytes));
    let files = if *n_shards == 1 { "file" } else { "files" };
    format!(
        "{out}: {n_tensors} tensors, {n_merged} of them merged, {bytes} in {n_shards} {files}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_hidden_files_stay_behind() {
        for name in [
            "config.json",
            "tokenizer.json",
            "merges.txt",
            "chat_template.jinja",
            "tokenizer.model",
            "LICENSE",
            "video_preprocessor_config.json",
        ] {
            assert!(is_copied(name), "{name}");
        }
        for name in [
            "model.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin.index.json",
            "optimizer.pt",
            "README.md",
            ".gitattributes",
            ".hidden.json",
        ] {
            assert!(!is_copied(name), "{name}");
        }
    }
}
