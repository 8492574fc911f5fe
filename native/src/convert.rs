//! `globe convert`.

use std::path::Path;

use anyhow::{Context, anyhow};
use globe_engine::check_small_files;
use globe_format::gguf::{Gguf, GgufModel};
use globe_format::pack::{PackEvent, PackJob, PackOptions, pack};
use globe_format::packed::{FileEntry, Manifest, Provenance, digest_files};
use globe_format::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, Error, Folder, Mapped, MemoryFiles, SourceTensors, read_file,
};
use globe_model::{Config, Model, Qwen2_5Vl};

use crate::adapter;
use crate::args::ConvertArgs;
use crate::console::{print, say};
use crate::exit::{Exit, Fail, OrUsage};
use crate::inspect::bytes;
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// Small files of a checkpoint that a packed folder takes along, as far as they exist.
const COPIED: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
];

/// What is read: a model and the small files beside it.
struct Input<T> {
    config: Config,
    tensors: T,
    files: Vec<(String, Vec<u8>)>,
    /// Files with weights, by folder.
    weights: Vec<(Folder, Vec<String>)>,
}

/// Packs a model.
pub fn run(args: &ConvertArgs) -> Result<Exit, Fail> {
    let interrupt = Interrupt::install()?;
    interrupt.begin_work();
    let done = pollster::block_on(async {
        match args.from.is_dir() {
            true => with_adapter(args, checkpoint(args).await?, &interrupt).await,
            false => with_adapter(args, gguf(args).await?, &interrupt).await,
        }
    });
    let manifest = match done {
        Ok(manifest) => manifest,
        Err(Stop::Interrupted) => {
            say(format_args!("interrupted; the same command goes on from here"));
            return Ok(Exit::Interrupted);
        }
        Err(Stop::Failed(fail)) => return Err(fail),
    };
    print(&summary(&args.out, &manifest)).context("cannot write to standard output")?;
    Ok(Exit::Success)
}

/// Why there is no folder.
enum Stop {
    Interrupted,
    Failed(Fail),
}

impl From<Fail> for Stop {
    fn from(fail: Fail) -> Self {
        Self::Failed(fail)
    }
}

/// Writing fails for reasons outside of the input; all else its owner can mend.
impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Self::Interrupted,
            Error::DiskFull { .. } | Error::WriteFile { .. } => Self::Failed(error.into()),
            _ => Self::Failed(Fail::usage(error)),
        }
    }
}

/// A Hugging Face folder.
async fn checkpoint(args: &ConvertArgs) -> Result<Input<impl SourceTensors + use<>>, Fail> {
    if args.mmproj.is_some() {
        return Err(Fail::usage(anyhow!("--mmproj goes with a GGUF file, not with a folder")));
    }
    let folder = Folder::open(&args.from).or_usage()?;
    let context = || format!("cannot use {}", args.from.display());
    let (config, tensors) = Model::checkpoint(&folder).await.with_context(context).or_usage()?;
    let mut files = Vec::new();
    for name in COPIED {
        let found = read_file(&folder, name).await.with_context(context).or_usage()?;
        files.extend(found.map(|bytes| (name.to_owned(), bytes)));
    }
    let infos = tensors.names().filter_map(|name| tensors.info(name));
    let mut names: Vec<String> = infos.map(|info| info.file.clone()).collect();
    names.sort();
    names.dedup();
    Ok(Input { config, tensors, files, weights: vec![(folder, names)] })
}

/// A GGUF file and the one of its vision tower.
async fn gguf(args: &ConvertArgs) -> Result<Input<GgufModel<Mapped>>, Fail> {
    let Some(mmproj) = &args.mmproj else {
        let from = args.from.display();
        let error = anyhow!("{from} is not a folder; for a GGUF file, pass --mmproj as well");
        return Err(Fail::usage(error));
    };
    let (text_folder, text) = split(&args.from)?;
    let (vision_folder, vision) = split(mmproj)?;
    let open = async |folder: &Folder, name: &str| {
        let context = || format!("cannot use {}", folder.path().join(name).display());
        Gguf::open(folder, name).await.with_context(context).or_usage()
    };
    let tensors =
        GgufModel::new(open(&text_folder, &text).await?, open(&vision_folder, &vision).await?);
    let tensors = tensors.or_usage()?;
    let files = tensors.small_files().or_usage()?;
    let config = files.iter().find(|(name, _)| name == "config.json");
    let config = config.context("no config.json was made")?;
    let config = Config::parse(&config.1).or_usage()?;
    let weights = vec![(text_folder, vec![text]), (vision_folder, vec![vision])];
    Ok(Input { config, tensors, files, weights })
}

/// Folder and name of a file.
fn split(path: &Path) -> Result<(Folder, String), Fail> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{}: not a file", path.display())).or_usage()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = Folder::open(folder.unwrap_or(Path::new("."))).or_usage()?;
    Ok((folder, name.to_owned()))
}

/// Merges the adapter, if there is one, and packs.
async fn with_adapter<T: SourceTensors>(
    args: &ConvertArgs,
    input: Input<T>,
    interrupt: &Interrupt,
) -> Result<Manifest, Stop> {
    // A folder that no engine can open is not worth hours of packing.
    let small: MemoryFiles = input.files.iter().cloned().collect();
    let checked = check_small_files(&small, &input.config).await;
    checked.with_context(|| format!("cannot use {}", args.from.display())).or_usage()?;
    drop(small);
    let mut source = Provenance::default();
    let Some(path) = &args.adapter else {
        source.inputs = digests(&input.weights, args.quiet, interrupt).await?;
        return write(args, &input.config, &input.tensors, input.files, source, interrupt).await;
    };
    let folder = adapter::folder(path)?;
    let tensors = adapter::merge(&input.config, input.tensors, &folder).await;
    let tensors = tensors.with_context(|| format!("cannot merge {}", path.display())).or_usage()?;
    if !args.quiet {
        adapter::note_other_base(tensors.adapter(), &args.from);
    }
    source.inputs = digests(&input.weights, args.quiet, interrupt).await?;
    let names = [ADAPTER_CONFIG_FILE, ADAPTER_FILE].map(str::to_owned).to_vec();
    source.adapter = digests(&[(folder, names)], args.quiet, interrupt).await?;
    write(args, &input.config, &tensors, input.files, source, interrupt).await
}

/// What the inputs are; the folder tells it, and another input cannot be taken for this one.
async fn digests(
    weights: &[(Folder, Vec<String>)],
    quiet: bool,
    interrupt: &Interrupt,
) -> Result<Vec<FileEntry>, Error> {
    let mut entries = Vec::new();
    for (folder, names) in weights {
        let progress = Progress::bytes("reading", quiet);
        let mut on_bytes = |done: u64, all: u64| {
            progress.set(done as usize, all as usize);
            !interrupt.cancel().is_cancelled()
        };
        let found = digest_files(folder, names, &mut on_bytes).await;
        progress.clear();
        entries.extend(found?);
    }
    Ok(entries)
}

async fn write<T: SourceTensors>(
    args: &ConvertArgs,
    config: &Config,
    tensors: &T,
    files: Vec<(String, Vec<u8>)>,
    source: Provenance,
    interrupt: &Interrupt,
) -> Result<Manifest, Stop> {
    let specs = Qwen2_5Vl::packed_specs(config);
    let (bits, vision_bits) = (args.bits, args.vision_bits);
    let options = PackOptions { bits, vision_bits, shard_bytes: args.shard_mb << 20 };
    let architecture = Qwen2_5Vl::ARCHITECTURE;
    let job = PackJob { architecture, specs: &specs, options, source, files };
    let progress = Progress::bytes("packing", args.quiet);
    let mut on_event = |event| match event {
        PackEvent::Progress { done, total } => progress.set(done as usize, total as usize),
        PackEvent::Resumed { shards } => {
            progress.note(&format!("going on after {shards} finished files"));
        }
        PackEvent::StartedOver => {
            progress.note("the inputs or options have changed: starting over");
        }
        PackEvent::AlreadyDone => progress.note("already complete, and every file is intact"),
    };
    let cancelled = || interrupt.cancel().is_cancelled();
    let manifest = pack(&job, tensors, &args.out, &mut on_event, &cancelled).await;
    progress.clear();
    Ok(manifest?)
}

fn summary(out: &Path, manifest: &Manifest) -> String {
    format!(
        "{}: {} tensors, {} in {} files, {} bits, vision {} bits\n",
        out.display(),
        manifest.tensors.len(),
        bytes(manifest.total_bytes),
        manifest.shards.len(),
        manifest.bits,
        manifest.vision_bits,
    )
}
