//! What training left: a PEFT folder, or a checkpoint of `globe train`.

use std::path::Path;

use anyhow::{Context, anyhow};
use globe_format::packed::{FileEntry, MANIFEST_FILE, digest_files};
use globe_format::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, Adapter, Checkpoint, Folder, Mapped, Merged, Replaced,
    Source, SourceTensors, read_file,
};
use globe_model::{Config, Qwen2_5Vl};
use serde_json::Value;

use crate::console::{printable, say};
use crate::exit::{Fail, OrUsage};

/// Folder of the adapter within a checkpoint of `globe train`.
const WITHIN_CHECKPOINT: &str = "adapter";

/// Weights within a checkpoint of `globe train` that trained all of them.
const FULL_WEIGHTS: &str = "parameters.safetensors";

/// Its only head, which `tie_word_embeddings` makes another name of the embeddings.
const HEAD: &str = "lm_head.weight";
const EMBEDDINGS: &str = "model.embed_tokens.weight";

/// The folder with the two files of an adapter: `path`, or one within a checkpoint or a finished run
/// of `globe train`. Those of a checkpoint are checked against its digests.
pub fn folder(path: &Path) -> Result<Folder, Fail> {
    let here = Folder::open(path).or_usage()?;
    if path.join(ADAPTER_CONFIG_FILE).exists() {
        return Ok(here);
    }
    let shown = path.display();
    let inner = path.join(WITHIN_CHECKPOINT);
    if inner.join(ADAPTER_CONFIG_FILE).exists() {
        let adapter = Folder::open(inner).or_usage()?;
        pollster::block_on(check_digests(&here, &adapter))
            .with_context(|| format!("cannot use the checkpoint {shown}"))
            .or_usage()?;
        return Ok(adapter);
    }
    let error = match path.join(FULL_WEIGHTS).exists() {
        true => anyhow!(
            "{shown}: a checkpoint of all weights, not of an adapter; `globe export` makes a model of it"
        ),
        false => anyhow!(
            "{shown}: no {ADAPTER_CONFIG_FILE}, here or in {WITHIN_CHECKPOINT}/; \
             pass a folder that PEFT wrote or a checkpoint that `globe train` wrote"
        ),
    };
    Err(Fail::usage(error))
}

/// Compares both files of the adapter with the manifest of the checkpoint around them.
async fn check_digests(checkpoint: &Folder, adapter: &Folder) -> anyhow::Result<()> {
    let names = [ADAPTER_CONFIG_FILE, ADAPTER_FILE].map(str::to_owned);
    let inner = format!("{WITHIN_CHECKPOINT}/");
    check_files(checkpoint, adapter, &names, &inner).await
}

/// Compares files of `folder`, which is `inner` of the checkpoint, with its manifest.
async fn check_files(
    checkpoint: &Folder,
    folder: &Folder,
    names: &[String],
    inner: &str,
) -> anyhow::Result<()> {
    // A finished run has its adapter in a folder of the same name, and no manifest.
    let Some(json) = read_file(checkpoint, MANIFEST_FILE).await? else { return Ok(()) };
    let manifest: Value = serde_json::from_slice(&json).context(MANIFEST_FILE)?;
    for FileEntry { name, sha256, .. } in digest_files(folder, names, &mut |_, _| true).await? {
        let name = format!("{inner}{name}");
        if manifest["files"][&name]["sha256"] != sha256.as_str() {
            anyhow::bail!("{name}: its SHA-256 is not that of {MANIFEST_FILE}; use another step");
        }
    }
    Ok(())
}

/// Whether `path` is a checkpoint of `globe train` that trained all weights.
pub fn is_full(path: &Path) -> bool {
    path.join(FULL_WEIGHTS).exists()
}

/// Tensors of a model with those of a checkpoint that trained all weights in place of its own. The
/// file is checked against the digest of the checkpoint.
pub async fn replace(
    config: &Config,
    base: Checkpoint<Mapped>,
    path: &Path,
) -> anyhow::Result<Replaced<Mapped, Mapped>> {
    let folder = Folder::open(path)?;
    check_files(&folder, &folder, &[FULL_WEIGHTS.to_owned()], "").await?;
    let weights = Checkpoint::open_file(&folder, FULL_WEIGHTS).await?;
    // Some tied exports store the head as well.
    let tied = config.tie_word_embeddings.then(|| (HEAD.to_owned(), EMBEDDINGS.to_owned()));
    Ok(Replaced::new(base, weights, tied.into_iter().collect())?)
}

/// Says on standard error that an adapter names another base than the folder `base`. Its matrices fit, so it may be the
/// same model under another name; a wrong one of the same shape answers nonsense, and nothing else tells.
pub fn note_other_base<S: Source>(adapter: &Adapter<S>, base: &Path) {
    let Some(wanted) = adapter.base_name() else { return };
    // The cache of downloads has files behind links without their names.
    let real = std::fs::canonicalize(base).unwrap_or_else(|_| base.to_owned());
    if !is_called(base, wanted) && !is_called(&real, wanted) {
        say(format_args!(
            "note: the adapter was trained for `{}`, the base is {}; they fit in shape, so make sure that it is the same model",
            printable(&wanted.replace('\n', " ")),
            real.display()
        ));
    }
}

/// Whether a folder or file, or the cache of downloads that it lies in, bears the last part of a model's name: as a whole, or
/// one of both goes on where the other ends, as `NAME-q4` does.
fn is_called(base: &Path, wanted: &str) -> bool {
    let last = wanted.trim_end_matches('/').rsplit('/').next().unwrap_or(wanted).to_lowercase();
    let own = base.file_name().map(|name| name.to_string_lossy().to_lowercase());
    let parts = base.components().map(|part| part.as_os_str().to_string_lossy().to_lowercase());
    let goes_on = |long: &str, short: &str| {
        long.strip_prefix(short).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    };
    own.is_some_and(|own| goes_on(&own, &last) || goes_on(&last, &own))
        // huggingface_hub: models--OWNER--NAME/snapshots/REVISION.
        || parts.into_iter().any(|part| part.ends_with(&format!("--{last}")))
}

/// Tensors of a model with the adapter of `folder` merged into them.
pub async fn merge<T: SourceTensors>(
    config: &Config,
    tensors: T,
    folder: &Folder,
) -> anyhow::Result<Merged<T, Mapped>> {
    let adapter = Adapter::open(folder, Qwen2_5Vl::canonical_name).await?;
    if config.tie_word_embeddings && adapter.changes(HEAD) {
        anyhow::bail!(
            "it changes `{HEAD}`, which this base shares with the embeddings; \
             merge it with PEFT into a base that does not"
        );
    }
    Ok(Merged::new(tensors, adapter)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_known_by_its_folder_or_the_cache_around_it() {
        let wanted = "Qwen/Qwen2.5-VL-7B-Instruct";
        for (folder, expected) in [
            ("/models/qwen2.5-vl-7b-instruct", true),
            ("/hub/models--Qwen--Qwen2.5-VL-7B-Instruct/snapshots/cc59", true),
            ("/models/Qwen2.5-VL-3B-Instruct", false),
            ("/models/base", false),
            ("/models/qwen2.5-vl-7b-instruct-q4_0.gguf", true),
        ] {
            assert_eq!(is_called(Path::new(folder), wanted), expected, "{folder}");
        }
        assert!(is_called(Path::new("/runs/sft"), "runs/sft/"));
        assert!(!is_called(Path::new("/runs/sft10"), "runs/sft1"));
        assert!(is_called(
            Path::new("/models/Qwen2.5-VL-7B-Instruct"),
            "models/Qwen2.5-VL-7B-Instruct-q4"
        ));
    }
}
