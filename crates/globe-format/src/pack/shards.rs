//! The virtual array, written shard by shard, each finished before the next begins.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{disk::OutFolder, write_error};
use crate::{
    error::{Error, Result},
    packed::{FileEntry, JOURNAL_FILE, hex},
};

/// What an unfinished conversion has done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// Digest of everything that decides the bytes: inputs, options, plan.
    pub identity: String,
    /// Names of the small files that it copies.
    pub files: Vec<String>,
    /// Finished shards in order.
    pub shards: Vec<FileEntry>,
}

/// Name of a shard, counted from 0 here and from 1 on disk.
pub(super) fn shard_name(idx: u64) -> String {
    format!("model-{:05}.bin", idx + 1)
}

/// True for every name that [`shard_name`] gives.
pub(super) fn is_shard_name(name: &str) -> bool {
    let digits = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".bin"));
    digits.is_some_and(|d| d.len() >= 5 && d.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Takes the bytes of the array in order, from the beginning or from a shard on.
pub(super) struct ShardWriter<'a, O> {
    out: &'a mut O,
    shard_bytes: u64,
    total_bytes: u64,
    /// Bytes before this are in finished shards and are dropped.
    start: u64,
    /// Place of the next byte.
    at: u64,
    journal: Journal,
    whole: Sha256,
    shard: Sha256,
}

impl<'a, O: OutFolder> ShardWriter<'a, O> {
    /// Goes on after the finished shards of `journal`; `whole` has seen their bytes.
    pub(super) fn new(
        out: &'a mut O,
        journal: Journal,
        whole: Sha256,
        (shard_bytes, total_bytes): (u64, u64),
    ) -> Self {
        let start = (journal.shards.len() as u64).saturating_mul(shard_bytes).min(total_bytes);
        Self { out, shard_bytes, total_bytes, start, at: 0, journal, whole, shard: Sha256::new() }
    }

    /// True when everything before `end` is in finished shards.
    pub(super) fn has(&self, end: u64) -> bool {
        end <= self.start
    }

    /// Bytes that are finished or written.
    pub(super) fn done(&self) -> u64 {
        self.at.max(self.start)
    }

    /// Moves over finished bytes up to `offset`.
    pub(super) fn skip_to(&mut self, offset: u64) {
        self.at = offset;
    }

    /// Writes zeros up to `offset`.
    pub(super) fn pad_to(&mut self, offset: u64) -> Result<()> {
        const ZEROS: [u8; 256] = [0; 256];
        while self.at < offset {
            let n = (offset - self.at).min(ZEROS.len() as u64);
            self.write(&ZEROS[..n as usize])?;
        }
        Ok(())
    }

    /// Writes the next bytes of the array.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        let finished = self.start.saturating_sub(self.at).min(bytes.len() as u64);
        self.at += finished;
        bytes = &bytes[finished as usize..];
        while !bytes.is_empty() {
            let (idx, within) = (self.at / self.shard_bytes, self.at % self.shard_bytes);
            let name = shard_name(idx);
            if within == 0 {
                self.out.create(&name).map_err(|error| self.fail(&name, error))?;
                self.shard = Sha256::new();
            }
            let n = bytes.len().min((self.shard_bytes - within) as usize);
            let (now, later) = bytes.split_at(n);
            self.out.append(now).map_err(|error| self.fail(&name, error))?;
            self.shard.update(now);
            self.whole.update(now);
            self.at += n as u64;
            bytes = later;
            if self.at == self.total_bytes || self.at.is_multiple_of(self.shard_bytes) {
                self.finish_shard(name)?;
            }
        }
        Ok(())
    }

    /// Writes words, little-endian.
    pub(super) fn write_words(&mut self, words: &[u32]) -> Result<()> {
        let mut bytes = [0; 4 << 12];
        for words in words.chunks(bytes.len() / 4) {
            let bytes = &mut bytes[..4 * words.len()];
            for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
                *bytes = word.to_le_bytes();
            }
            self.write(bytes)?;
        }
        Ok(())
    }

    fn finish_shard(&mut self, name: String) -> Result<()> {
        self.out.sync().map_err(|error| self.fail(&name, error))?;
        self.out.publish().map_err(|error| self.fail(&name, error))?;
        let size = (self.at - 1) % self.shard_bytes + 1;
        let sha256 = hex(std::mem::take(&mut self.shard));
        self.journal.shards.push(FileEntry { name, size, sha256 });
        write_journal(self.out, &self.journal)
    }

    /// The shards and the digest of the whole.
    pub(super) fn finish(self) -> (Vec<FileEntry>, String) {
        (self.journal.shards, hex(self.whole))
    }

    fn fail(&self, file: &str, error: std::io::Error) -> Error {
        write_error(file, self.total_bytes - self.at, error)
    }
}

/// Replaces the journal.
pub(super) fn write_journal<O: OutFolder>(out: &mut O, journal: &Journal) -> Result<()> {
    let json = serde_json::to_vec(journal).map_err(|error| Error::Manifest {
        field: JOURNAL_FILE.into(),
        reason: error.to_string(),
    })?;
    write_file(out, JOURNAL_FILE, &json)
}

/// Writes a small file, which appears when it is complete.
pub(crate) fn write_file<O: OutFolder>(out: &mut O, name: &str, bytes: &[u8]) -> Result<()> {
    let mut write = || {
        out.create(name)?;
        out.append(bytes)?;
        out.sync()?;
        out.publish()
    };
    write().map_err(|error| write_error(name, bytes.len() as u64, error))
}
