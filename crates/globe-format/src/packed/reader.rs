//! A packed folder for reading: tensors by name, bytes by extent.

use std::{borrow::Cow, collections::BTreeMap};

use sha2::{Digest, Sha256};

use super::{
    damage::{Damage, DamageReport},
    digest,
    manifest::{
        Extent, FileEntry, JOURNAL_FILE, MANIFEST_FILE, Manifest, PackedTensor, tensor_fail,
    },
    spec::TensorSpec,
};
use crate::{
    error::{Error, Result},
    names::{self, Present},
    source::{self, Files, Source, read_file},
};

/// A packed model. Opening reads the manifest only.
#[derive(Debug)]
pub struct Packed<S> {
    manifest: Manifest,
    /// Places in `manifest.tensors`.
    by_name: BTreeMap<String, usize>,
    shards: Vec<S>,
}

/// True when the folder holds a packed model, or part of one.
///
/// # Errors
/// [`Error::Open`] if the folder cannot be read.
pub async fn is_packed<F: Files>(files: &F) -> Result<bool> {
    let finished = source::open(files, MANIFEST_FILE).await?.is_some();
    Ok(finished || source::open(files, JOURNAL_FILE).await?.is_some())
}

impl<S: Source> Packed<S> {
    /// Reads the manifest and checks that every shard has its size.
    ///
    /// # Errors
    /// [`Error::Unfinished`] if the conversion was interrupted, [`Error::Manifest`] naming the
    /// field, [`Error::Damaged`] listing missing and truncated shards.
    pub async fn open<F: Files<Source = S>>(files: &F) -> Result<Self> {
        let manifest = read_manifest(files).await?;
        let mut damage = DamageReport::default();
        let mut shards = Vec::with_capacity(manifest.shards.len());
        for entry in &manifest.shards {
            shards.extend(open_entry(files, entry, &mut damage).await?);
        }
        if !damage.files.is_empty() {
            return Err(Error::Damaged(Box::new(damage)));
        }
        let names = manifest.tensors.iter().enumerate();
        let by_name = names.map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        Ok(Self { manifest, by_name, shards })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`] with the nearest name.
    pub fn tensor(&self, name: &str) -> Result<&PackedTensor> {
        let place = self.by_name.get(name).ok_or_else(|| Error::UnknownTensor {
            name: name.into(),
            nearest: names::nearest(name, self.by_name.keys().map(String::as_str)),
        });
        place.map(|&i| &self.manifest.tensors[i])
    }

    /// Bytes of the virtual array: borrowed from a memory map when they lie in one shard, else
    /// put together.
    ///
    /// # Errors
    /// [`Error::Read`] if a shard fails or the extent leaves the array,
    /// [`Error::OutOfMemory`] if there is no room for a copy.
    pub async fn read(&self, extent: Extent) -> Result<Cow<'_, [u8]>> {
        let (shard_bytes, total) = (self.manifest.shard_bytes, self.manifest.total_bytes);
        if extent.size > total || extent.offset > total - extent.size {
            let source = std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                format!("the packed tensors end at {total}"),
            );
            let end = extent.offset.saturating_add(extent.size);
            let file = MANIFEST_FILE.into();
            return Err(Error::Read { file, start: extent.offset, end, source });
        }
        let mut joined = Vec::new();
        let mut at = extent.offset;
        while at < extent.end() {
            let (idx, start) = ((at / shard_bytes) as usize, at % shard_bytes);
            let end = shard_bytes.min(start + (extent.end() - at));
            let name = &self.manifest.shards[idx].name;
            let bytes = source::read(&self.shards[idx], name, start..end).await?;
            if bytes.len() as u64 == extent.size {
                return Ok(bytes);
            }
            if joined.is_empty() {
                reserve(&mut joined, extent.size)?;
            }
            joined.extend_from_slice(&bytes);
            at += end - start;
        }
        Ok(Cow::Owned(joined))
    }

    /// Checks that the folder holds exactly the tensors of a model, with their shapes, and that no part ends
    /// between rows that are read together.
    ///
    /// # Errors
    /// [`Error::Names`] listing all differences, [`Error::Manifest`] naming a tensor that was cut wrongly.
    pub fn check(&self, specs: &[TensorSpec]) -> Result<()> {
        let expected: Vec<_> = specs.iter().map(|spec| (spec.name.clone(), spec.shape())).collect();
        let present = self.manifest.tensors.iter().map(|tensor| {
            let label = tensor.name.clone();
            (tensor.name.as_str(), Present { shape: &tensor.shape, label })
        });
        let report = names::compare(&expected, &present.collect(), |_| false);
        if !report.is_empty() {
            return Err(Error::Names(Box::new(report)));
        }
        specs.iter().try_for_each(|spec| check_turns(self.tensor(&spec.name)?, spec.turn()))
    }
}

/// Errors if a part ends within a turn: `globe convert` once cut matrices of more than 128 MiB so.
fn check_turns(tensor: &PackedTensor, turn: usize) -> Result<()> {
    match tensor.parts.iter().find(|part| !part.rows.is_multiple_of(turn)) {
        None => Ok(()),
        Some(part) => {
            let reason = format!("a part of {} rows, not a multiple of {turn}", part.rows);
            Err(tensor_fail(tensor, &reason))
        }
    }
}

/// Compares every file of a packed folder with its digest; `progress` gets bytes done and in all,
/// and returns false to stop.
///
/// # Errors
/// [`Error::Damaged`] listing every file that is missing, truncated or changed, with both digests;
/// [`Error::Cancelled`]; otherwise as [`Packed::open`].
pub async fn verify<F: Files>(
    files: &F,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Manifest> {
    let manifest = read_manifest(files).await?;
    let small: u64 = manifest.files.iter().map(|entry| entry.size).sum();
    let (mut done, all) = (0, manifest.total_bytes + small);
    let mut damage = DamageReport::default();
    let mut whole = Sha256::new();
    let shards = manifest.shards.iter().map(|entry| (entry, true));
    for (entry, is_shard) in shards.chain(manifest.files.iter().map(|entry| (entry, false))) {
        if let Some(source) = open_entry(files, entry, &mut damage).await? {
            let mut own = Sha256::new();
            let mut sink = |bytes: &[u8]| {
                own.update(bytes);
                if is_shard {
                    whole.update(bytes);
                }
                done += bytes.len() as u64;
                progress(done, all)
            };
            digest::stream(&source, &entry.name, &mut sink).await?;
            let (expected, found) = (entry.sha256.clone(), digest::hex(own));
            if expected != found {
                damage.files.push((entry.name.clone(), Damage::Digest { expected, found }));
            }
        }
    }
    if !damage.files.is_empty() {
        return Err(Error::Damaged(Box::new(damage)));
    }
    let (expected, found) = (&manifest.sha256, digest::hex(whole));
    if *expected != found {
        let reason = format!("expected {expected} of all shards, found {found}");
        return Err(Error::Manifest { field: "sha256".into(), reason });
    }
    Ok(manifest)
}

/// Sizes and digests of files, by plain name; `progress` gets bytes done and in all, and returns
/// false to stop.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Cancelled`], or an error of a source.
pub async fn digest_files<F: Files>(
    files: &F,
    names: &[String],
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Vec<FileEntry>> {
    let mut sources = Vec::with_capacity(names.len());
    for name in names {
        let source = source::open(files, name).await?;
        sources.push(source.ok_or_else(|| Error::NotFound { file: name.clone() })?);
    }
    let (mut done, all) = (0, sources.iter().map(Source::size_bytes).sum());
    let mut entries = Vec::with_capacity(names.len());
    for (name, source) in names.iter().zip(&sources) {
        let mut own = Sha256::new();
        let mut sink = |bytes: &[u8]| {
            own.update(bytes);
            done += bytes.len() as u64;
            progress(done, all)
        };
        digest::stream(source, name, &mut sink).await?;
        let (name, size, sha256) = (name.clone(), source.size_bytes(), digest::hex(own));
        entries.push(FileEntry { name, size, sha256 });
    }
    Ok(entries)
}

async fn read_manifest<F: Files>(files: &F) -> Result<Manifest> {
    match read_file(files, MANIFEST_FILE).await? {
        Some(json) => Manifest::parse(&json),
        None if source::open(files, JOURNAL_FILE).await?.is_some() => Err(Error::Unfinished),
        None => Err(Error::NotFound { file: MANIFEST_FILE.into() }),
    }
}

/// Opens a file of the manifest, or notes why it cannot be used.
async fn open_entry<F: Files>(
    files: &F,
    entry: &FileEntry,
    damage: &mut DamageReport,
) -> Result<Option<F::Source>> {
    damage.checked += 1;
    let opened = source::open(files, &entry.name).await?;
    let bad = match &opened {
        None => Damage::Missing,
        Some(source) if source.size_bytes() != entry.size => {
            Damage::Size { expected: entry.size, found: source.size_bytes() }
        }
        Some(_) => return Ok(opened),
    };
    damage.files.push((entry.name.clone(), bad));
    Ok(None)
}

fn reserve(bytes: &mut Vec<u8>, size: u64) -> Result<()> {
    let fail = || Error::OutOfMemory { tensor: "packed tensor".into(), bytes: size };
    let n = usize::try_from(size).map_err(|_| fail())?;
    bytes.try_reserve_exact(n).map_err(|_| fail())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::{Class, Part, Provenance, SourceRows, plan};
    use crate::quant::WeightFormat;

    fn opened(tensors: Vec<PackedTensor>) -> Packed<Vec<u8>> {
        let by_name = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        let manifest = Manifest {
            format: String::new(),
            version: 0,
            architecture: String::new(),
            bits: 8,
            vision_bits: 8,
            source: Provenance::default(),
            shard_bytes: 0,
            total_bytes: 0,
            shards: Vec::new(),
            sha256: String::new(),
            files: Vec::new(),
            tensors,
        };
        Packed { manifest, by_name, shards: Vec::new() }
    }

    #[test]
    fn a_part_that_separates_gate_and_up_is_refused() {
        let source =
            |name: &str| SourceRows { name: name.into(), rows: 8, cols: 32, padded_rows: 8 };
        let pair = vec![source("gate"), source("up")];
        let specs = [
            TensorSpec::interleave("gate_up", Class::Text, pair.clone()),
            TensorSpec::stack("qk", Class::Text, pair),
        ];
        let (mut tensors, _) = plan(&specs, WeightFormat::Q8, WeightFormat::Q8).unwrap();
        opened(tensors.clone()).check(&specs).unwrap();
        let cut = |tensor: &mut PackedTensor| {
            let part = tensor.parts[0].clone();
            tensor.parts[0].rows = 9;
            tensor.parts.push(Part { first_row: 9, rows: 7, ..part });
        };
        cut(&mut tensors[1]);
        opened(tensors.clone()).check(&specs).unwrap();
        cut(&mut tensors[0]);
        assert_eq!(
            opened(tensors).check(&specs).unwrap_err().to_string(),
            "manifest.json: tensors: `gate_up`: a part of 9 rows, not a multiple of 2; \
             convert or download the model again"
        );
    }
}
