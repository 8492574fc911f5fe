//! What an earlier run left: a finished model, finished shards, or nothing of use.

use sha2::{Digest, Sha256};

use super::{
    PackEvent, Run,
    disk::{OutFolder, TEMPORARY},
    shards::{Journal, is_shard_name, shard_name, write_journal},
    write_error,
};
use crate::{
    error::{Error, Result},
    packed::{FileEntry, JOURNAL_FILE, MANIFEST_FILE, Manifest, hex, sha256, stream, verify},
    source::{self, Files, read_file},
};

impl Run<'_> {
    /// The manifest of a finished run with the same inputs and options, its files intact.
    pub(super) async fn already_done<F: Files, O: OutFolder>(
        &mut self,
        folder: &F,
        out: &mut O,
    ) -> Result<Option<Manifest>> {
        let Some(json) = read_file(folder, MANIFEST_FILE).await? else { return Ok(None) };
        let taken = |_| Error::OutputTaken { found: MANIFEST_FILE.into() };
        let manifest = Manifest::parse(&json).map_err(taken)?;
        if identity(&manifest)? != identity(&self.draft)? {
            return Err(Error::OutputTaken { found: MANIFEST_FILE.into() });
        }
        let mut progress = |done, total| {
            (self.on_event)(PackEvent::Progress { done, total });
            !(self.cancelled)()
        };
        verify(folder, &mut progress).await?;
        // Left there when the run was stopped after its last rename.
        out.remove(JOURNAL_FILE).map_err(|error| write_error(JOURNAL_FILE, 0, error))?;
        (self.on_event)(PackEvent::AlreadyDone);
        Ok(Some(manifest))
    }

    /// The journal to go on with, and the digest of the bytes it stands for.
    pub(super) async fn resume<F: Files, O: OutFolder>(
        &mut self,
        folder: &F,
        out: &mut O,
    ) -> Result<(Journal, Sha256)> {
        let found = read_file(folder, JOURNAL_FILE).await?;
        let old: Option<Journal> =
            found.as_ref().and_then(|json| serde_json::from_slice(json).ok());
        let names = out.names().map_err(|error| write_error("the output folder", 0, error))?;
        let copied = old.as_ref().map(|old| old.files.as_slice()).unwrap_or_default();
        refuse_others(&names, copied, found.is_some())?;

        let files = self.draft.files.iter().map(|entry| entry.name.clone()).collect();
        let mut kept = Journal { identity: identity(&self.draft)?, files, shards: Vec::new() };
        let mut whole = Sha256::new();
        match &old {
            Some(old) if old.identity == kept.identity => {
                for entry in &old.shards {
                    if !self.keep(folder, entry, kept.shards.len(), &mut whole).await? {
                        break;
                    }
                    kept.shards.push(entry.clone());
                }
                (self.on_event)(PackEvent::Resumed { shards: kept.shards.len() });
            }
            _ if found.is_some() => (self.on_event)(PackEvent::StartedOver),
            _ => {}
        }
        // The journal first: while it names a shard, the shard is there.
        write_journal(out, &kept)?;
        let is_kept = |name: &String| kept.shards.iter().any(|entry| entry.name == *name);
        for name in names.iter().filter(|name| *name != JOURNAL_FILE && !is_kept(name)) {
            out.remove(name).map_err(|error| write_error(name, 0, error))?;
        }
        Ok((kept, whole))
    }

    /// Takes a finished shard into the digest if it is the one at `idx` and intact.
    async fn keep<F: Files>(
        &mut self,
        folder: &F,
        entry: &FileEntry,
        idx: usize,
        whole: &mut Sha256,
    ) -> Result<bool> {
        let at = idx as u64 * self.draft.shard_bytes;
        let expected = self.draft.shard_bytes.min(self.draft.total_bytes.saturating_sub(at));
        if entry.name != shard_name(idx as u64) || entry.size != expected || expected == 0 {
            return Ok(false);
        }
        let Some(shard) = source::open(folder, &entry.name).await? else { return Ok(false) };
        let (mut own, mut next, mut size) = (Sha256::new(), whole.clone(), 0);
        let mut sink = |bytes: &[u8]| {
            own.update(bytes);
            next.update(bytes);
            size += bytes.len() as u64;
            !(self.cancelled)()
        };
        stream(&shard, &entry.name, &mut sink).await?;
        let intact = size == entry.size && hex(own) == entry.sha256;
        if intact {
            *whole = next;
            self.progress(at + size);
        }
        Ok(intact)
    }
}

/// Refuses a folder with files that no conversion writes. Before the first journal is in place,
/// none has written anything else.
fn refuse_others(names: &[String], copied: &[String], has_journal: bool) -> Result<()> {
    let is_ours = |full: &String| {
        let name = full.strip_suffix(TEMPORARY).unwrap_or(full);
        let later = name == MANIFEST_FILE || is_shard_name(name);
        let later = later || copied.iter().any(|copied| copied == name);
        name == JOURNAL_FILE || (has_journal && later)
    };
    match names.iter().find(|name| !is_ours(name)) {
        Some(found) => Err(Error::OutputTaken { found: found.clone() }),
        None => Ok(()),
    }
}

/// Digest of everything in a manifest but the digests of its data.
fn identity(manifest: &Manifest) -> Result<String> {
    let bare = Manifest { shards: Vec::new(), sha256: String::new(), ..manifest.clone() };
    Ok(sha256(&bare.to_json()?))
}
