//! What commands read: photos, texts and model folders.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use globe_engine::{Demand, Engine, LoadOptions};
use globe_format::Folder;
use globe_image::{DecodeLimits, Photo, decode, upright_size};
use globe_model::Precision;
use globe_ops::{Compute, open_device};

use crate::args::ModelArgs;
use crate::exit::{Fail, OrUsage};
use crate::intact::Unchecked;
use crate::progress::Progress;

/// Names the model folder when `--model` does not.
const MODEL_VARIABLE: &str = "GLOBE_MODEL";

/// Largest image file read, bytes: far above any photo, and an endless stream stops there.
const MAX_IMAGE_FILE_BYTES: u64 = 1 << 30;

/// Where the size of nearly every photo stands: thousands of them may be asked for theirs.
const HEADER_BYTES: u64 = 128 << 10;

/// Reads and decodes an image file.
pub fn read_photo(path: &Path) -> anyhow::Result<Photo> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_IMAGE_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_IMAGE_FILE_BYTES {
        bail!("larger than {MAX_IMAGE_FILE_BYTES} bytes: is it an image?");
    }
    Ok(decode(&bytes, &DecodeLimits::default())?)
}

/// Reads a file of text for the model. Blank space at its end comes from editors and is dropped.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim_end().to_owned())
}

/// The model folder that was named.
pub fn open_folder(model: Option<&Path>) -> Result<Folder, Fail> {
    let from_environment = || std::env::var_os(MODEL_VARIABLE).map(PathBuf::from);
    let path = model.map(Path::to_owned).or_else(from_environment);
    let path = path.filter(|path| !path.as_os_str().is_empty());
    let missing = || {
        format!(
            "no model: pass --model DIR, the folder that holds config.json and the weights, or set {MODEL_VARIABLE}"
        )
    };
    Folder::open(path.with_context(missing).or_usage()?).or_usage()
}

/// Height and width of the photo with the most pixels; files that are no photos are passed over.
pub fn largest_photo(paths: &[PathBuf]) -> Option<[usize; 2]> {
    let size = |path: &PathBuf| {
        let (mut file, mut bytes) = (File::open(path).ok()?, Vec::new());
        let mut size_within = |limit: u64| {
            file.by_ref().take(limit).read_to_end(&mut bytes).ok()?;
            upright_size(&bytes, &DecodeLimits::default()).ok()
        };
        size_within(HEADER_BYTES).or_else(|| size_within(MAX_IMAGE_FILE_BYTES))
    };
    paths.iter().filter_map(size).max_by_key(|[height, width]| height * width)
}

/// Loads a model onto the chosen device if what will be asked of it fits into the budget.
pub async fn load_engine(
    folder: &Folder,
    model: &ModelArgs,
    demand: Demand,
    quiet: bool,
) -> Result<Engine, Fail> {
    let compute = open_device(model.device).await.or_usage()?;
    let precision = if model.reference { Precision::Reference } else { Precision::Stored };
    let budget = model.memory.on(&compute)?.bytes;
    let demand = Demand { kv: model.memory.cache_bits.0, ..demand };
    load_onto(folder, compute, &LoadOptions { precision, budget, demand }, quiet).await
}

/// Loads a model onto a device that is open.
pub async fn load_onto(
    folder: &Folder,
    compute: Compute,
    options: &LoadOptions,
    quiet: bool,
) -> Result<Engine, Fail> {
    let context = || format!("cannot load {}", folder.path().display());
    if let Some(unchecked) = Unchecked::of(folder.path()) {
        Engine::check(folder, &compute, options).await.with_context(context).or_usage()?;
        unchecked.compare(folder, quiet).await?;
    }
    let progress = Progress::loading(quiet);
    let mut on_progress = |done, all| progress.set(done, all);
    let engine = Engine::load_with(folder, compute, options, &mut on_progress).await;
    progress.clear();
    engine.with_context(context).or_usage()
}
