//! Samples in a shuffled order that only the seed decides, from any point.

use std::collections::BTreeMap;

use globe_image::{DecodeLimits, decode};
use globe_rng::{derive, shuffle};
use serde::{Deserialize, Serialize};

use super::{Dataset, Sample};
use crate::{Error, Result};

/// Purposes of random numbers, so that no two are alike.
const SHUFFLE_BLOCKS: u32 = 1;
const SHUFFLE_ROWS: u32 = 2;
const SPLIT: u32 = 3;

/// Bad photos listed by name; more are only counted.
const MAX_LISTED: usize = 1000;

/// Where in the data training stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Passes completed.
    pub epoch: u32,
    /// Rows taken in this pass, bad ones included.
    pub position: u64,
    /// Photos left out since the start, in all passes.
    #[serde(default)]
    pub bad_images: u64,
}

/// Which rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All but the evaluation share.
    #[default]
    Train,
    /// The evaluation share.
    Eval,
}

/// Order and choice of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamOptions {
    /// Decides the order and the split.
    pub seed: u64,
    /// False keeps the order of the files.
    pub shuffle: bool,
    /// Blocks held in memory and mixed with each other.
    pub window_blocks: usize,
    /// Share of rows set apart, 0 to 1.
    pub eval_fraction: f64,
    /// Which side of the split.
    pub part: Part,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { seed: 0, shuffle: true, window_blocks: 2, eval_fraction: 0.0, part: Part::Train }
    }
}

/// A photo that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadImage {
    /// Id of the row.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// An endless walk over the data. Bad photos are left out, counted and listed; bad rows are errors.
#[derive(Debug)]
pub struct Stream {
    data: Dataset,
    options: StreamOptions,
    cursor: Cursor,
    /// Order of the current epoch: block and row, and where windows end.
    order: Vec<(usize, usize)>,
    order_epoch: Option<u32>,
    /// Rows of the blocks of the current window, as far as they were needed.
    loaded: BTreeMap<usize, Vec<Option<Result<Sample>>>>,
    bad: Vec<BadImage>,
    /// How many of them were handed out.
    told: usize,
}

impl Stream {
    /// Starts at the first row of the first epoch.
    pub fn new(data: Dataset, options: StreamOptions) -> Self {
        Self {
            data,
            options,
            cursor: Cursor::default(),
            order: Vec::new(),
            order_epoch: None,
            loaded: BTreeMap::new(),
            bad: Vec::new(),
            told: 0,
        }
    }

    /// The data underneath.
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// Where the next sample comes from.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Goes on from a saved point: the samples after it are the same.
    pub fn seek(&mut self, cursor: Cursor) {
        self.cursor = cursor;
        self.loaded.clear();
    }

    /// Photos left out: the first thousand by name, and how often one was left out since the start.
    pub fn bad_images(&self) -> (&[BadImage], u64) {
        (&self.bad, self.cursor.bad_images)
    }

    /// Photos that were listed since this was last asked.
    pub fn new_bad_images(&mut self) -> &[BadImage] {
        let first = std::mem::replace(&mut self.told, self.bad.len());
        &self.bad[first..]
    }

    /// Rows of one pass over this part of the data.
    pub fn epoch_len(&mut self) -> u64 {
        self.make_order();
        self.order.len() as u64
    }

    /// The next sample whose photo can be decoded, with the photo's bytes in memory.
    ///
    /// # Errors
    /// [`Error::Data`] for a bad row, [`Error::NoImages`] if a whole pass has no good photo, and
    /// errors of the files.
    pub fn next_sample(&mut self) -> Result<Sample> {
        let mut tried = 0;
        let length = self.epoch_len();
        while tried < length.max(1) {
            let Some(sample) = self.take()? else {
                return Err(Error::NoImages { rows: 0, first: "no row is in this part".into() });
            };
            tried += 1;
            match load(&sample) {
                Ok(bytes) => {
                    return Ok(Sample { image: super::ImageSource::Bytes(bytes), ..sample });
                }
                Err(reason) => self.note_bad(sample.id, reason),
            }
        }
        let first = self.bad.first().map(|b| format!("{}: {}", b.id, b.reason));
        Err(Error::NoImages { rows: length, first: first.unwrap_or_default() })
    }

    fn note_bad(&mut self, id: String, reason: String) {
        self.cursor.bad_images += 1;
        if self.bad.len() < MAX_LISTED && self.bad.iter().all(|bad| bad.id != id) {
            self.bad.push(BadImage { id, reason });
        }
    }

    /// The row at the cursor, which moves on.
    fn take(&mut self) -> Result<Option<Sample>> {
        self.make_order();
        if self.cursor.position >= self.order.len() as u64 {
            if self.order.is_empty() {
                return Ok(None);
            }
            self.cursor = Cursor { epoch: self.cursor.epoch + 1, position: 0, ..self.cursor };
            self.loaded.clear();
            self.make_order();
        }
        let (block, row) = self.order[self.cursor.position as usize];
        self.cursor.position += 1;
        self.forget_old_blocks();
        if !self.loaded.contains_key(&block) {
            let rows = self.data.read_block(block)?.into_iter().map(Some).collect();
            self.loaded.insert(block, rows);
        }
        let slot = self.loaded.get_mut(&block).and_then(|rows| rows.get_mut(row));
        match slot.and_then(Option::take) {
            Some(sample) => sample.map(Some),
            None => Err(Error::DataChanged { block, row }),
        }
    }

    /// Drops blocks no later row of this window needs.
    fn forget_old_blocks(&mut self) {
        if self.loaded.len() <= self.options.window_blocks.max(1) {
            return;
        }
        let at = self.cursor.position as usize - 1;
        let reach = self.data.block_rows().iter().copied().max().unwrap_or(0)
            * self.options.window_blocks.max(1);
        let ahead = &self.order[at..(at + reach).min(self.order.len())];
        self.loaded.retain(|block, _| ahead.iter().any(|(b, _)| b == block));
    }

    fn make_order(&mut self) {
        if self.order_epoch == Some(self.cursor.epoch) {
            return;
        }
        let StreamOptions { seed, shuffle: mix, window_blocks, .. } = self.options;
        let (epoch, sizes) = (self.cursor.epoch, self.data.block_rows());
        let mut blocks: Vec<usize> = (0..sizes.len()).collect();
        if mix {
            shuffle(&mut blocks, derive(seed, epoch, 0, SHUFFLE_BLOCKS));
        }
        self.order.clear();
        for (i, window) in blocks.chunks(window_blocks.max(1)).enumerate() {
            let rows = window.iter().flat_map(|&b| (0..sizes[b]).map(move |r| (b, r)));
            let mut rows: Vec<_> = rows.filter(|&(b, r)| self.is_chosen(b, r)).collect();
            if mix {
                shuffle(&mut rows, derive(seed, epoch, i as u32, SHUFFLE_ROWS));
            }
            self.order.extend(rows);
        }
        self.order_epoch = Some(epoch);
    }

    fn is_chosen(&self, block: usize, row: usize) -> bool {
        let draw = derive(self.options.seed, block as u32, row as u32, SPLIT);
        let is_eval = (draw >> 11) as f64 / (1u64 << 53) as f64;
        (is_eval < self.options.eval_fraction) == (self.options.part == Part::Eval)
    }
}

/// The bytes of a photo that decodes, or why it does not.
fn load(sample: &Sample) -> std::result::Result<std::sync::Arc<[u8]>, String> {
    let bytes = sample.image.bytes().map_err(|e| e.to_string())?;
    decode(&bytes, &DecodeLimits::default()).map_err(|e| e.to_string())?;
    Ok(bytes.into())
}
