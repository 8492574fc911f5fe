//! Which tensor goes into which file.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::ExportJob;
use crate::{
    checkpoint::{Checkpoint, INDEX_FILE, SINGLE_FILE, TensorInfo},
    error::{Error, Result},
    pack::disk::TEMPORARY,
    source::{Source, is_plain_name},
    write::{Described, header},
};

/// One file of weights.
pub(super) struct Shard<'a> {
    pub name: String,
    /// Length field and JSON.
    pub header: Vec<u8>,
    /// In the order of their bytes.
    pub tensors: Vec<&'a TensorInfo>,
}

/// All files.
pub(super) struct Plan<'a> {
    pub shards: Vec<Shard<'a>>,
    /// Name and bytes of the index, if there are several shards.
    pub index: Option<(String, Vec<u8>)>,
    pub total_bytes: u64,
    /// Names of the small files.
    small_files: BTreeSet<String>,
}

#[derive(Serialize)]
struct Index<'a> {
    metadata: Metadata,
    weight_map: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Metadata {
    total_size: u64,
}

impl<'a> Plan<'a> {
    /// Fills shards with tensors in the order of their names.
    pub(super) fn new<S: Source>(base: &'a Checkpoint<S>, job: &ExportJob) -> Result<Self> {
        let mut infos: Vec<_> = base.names().filter_map(|name| base.info(name)).collect();
        infos.sort_by(|a, b| a.stored_name.cmp(&b.stored_name));
        let mut groups: Vec<Vec<&TensorInfo>> = vec![Vec::new()];
        let mut filled = 0;
        for info in infos {
            let size = info.size_bytes();
            if filled > 0 && filled + size > job.shard_bytes {
                groups.push(Vec::new());
                filled = 0;
            }
            filled += size;
            groups.last_mut().into_iter().for_each(|group| group.push(info));
        }
        let n = groups.len();
        let shards = groups.into_iter().enumerate();
        let shards: Vec<_> = shards.map(|(i, group)| shard(i, n, group)).collect::<Result<_>>()?;
        let total_bytes = base.total_bytes();
        let index = (n > 1).then(|| index(&shards, total_bytes)).transpose()?;
        let small_files = job.files.iter().map(|(name, _)| name.clone()).collect();
        let plan = Self { shards, index, total_bytes, small_files };
        match job.files.iter().find(|(name, _)| !is_plain_name(name) || is_taken(name)) {
            None => Ok(plan),
            Some((name, _)) => {
                let reason = format!("`{name}` cannot be the name of a copied file");
                Err(Error::PackOption { field: "files", reason })
            }
        }
    }

    /// True for what an unfinished export of this kind may have left.
    pub(super) fn may_have_written(&self, name: &str) -> bool {
        is_taken(name) || self.small_files.contains(name)
    }
}

/// A name that is reserved for weights and what becomes a file.
fn is_taken(name: &str) -> bool {
    let is_weights = name.starts_with("model") && name.ends_with(".safetensors");
    is_weights || name == INDEX_FILE || name.ends_with(TEMPORARY)
}

fn shard<'a>(idx: usize, n: usize, mut tensors: Vec<&'a TensorInfo>) -> Result<Shard<'a>> {
    tensors.sort_by(|a, b| described(a).order().cmp(&described(b).order()));
    let name = match n {
        1 => SINGLE_FILE.to_owned(),
        _ => format!("model-{:05}-of-{n:05}.safetensors", idx + 1),
    };
    // What transformers asks for. The base's own may describe values that are others now.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let described: Vec<_> = tensors.iter().map(|info| described(info)).collect();
    Ok(Shard { name, header: header(&described, &metadata)?, tensors })
}

fn described(info: &TensorInfo) -> Described<'_> {
    let TensorInfo { stored_name, dtype, shape, .. } = info;
    let size_bytes = info.size_bytes();
    Described { name: stored_name, dtype: *dtype, shape, size_bytes }
}

fn index(shards: &[Shard<'_>], total_size: u64) -> Result<(String, Vec<u8>)> {
    let mut weight_map = BTreeMap::new();
    for shard in shards {
        for info in &shard.tensors {
            weight_map.insert(info.stored_name.as_str(), shard.name.as_str());
        }
    }
    let index = Index { metadata: Metadata { total_size }, weight_map };
    let mut json = serde_json::to_vec_pretty(&index)
        .map_err(|error| Error::Write { tensor: INDEX_FILE.into(), reason: error.to_string() })?;
    json.push(b'\n');
    Ok((INDEX_FILE.into(), json))
}
