//! Features of photos that were read before, so that a second question does not run the tower.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use globe_model::ImageGrid;
use globe_ops::Tensor;
use sha2::{Digest, Sha256};

use crate::Prepared;

/// SHA-256 of patches and grids.
type Key = [u8; 32];

/// Features by photo, on the device. It belongs to one engine: the features of another model are
/// other features. The photos of one prompt are one entry.
///
/// When it is full, what was not used for longest goes first. An entry larger than the whole is
/// not kept.
#[derive(Debug)]
pub struct FeatureCache {
    capacity_bytes: u64,
    /// Least recently used first.
    entries: Mutex<VecDeque<Entry>>,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    features: Tensor<2>,
}

impl Entry {
    fn size_bytes(&self) -> u64 {
        (size_of::<f32>() * self.features.dims().iter().product::<usize>()) as u64
    }
}

impl FeatureCache {
    /// An empty cache that holds at most `capacity_bytes` of device memory; 0 keeps nothing.
    pub fn new(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, entries: Mutex::default() }
    }

    /// Bytes of the features that are kept.
    pub fn size_bytes(&self) -> u64 {
        self.entries().iter().map(Entry::size_bytes).sum()
    }

    /// Forgets everything; the memory is free once nobody else uses it.
    pub fn clear(&self) {
        self.entries().clear();
    }

    /// The features of `key`, from now on the most recently used.
    pub(crate) fn get(&self, key: &Key) -> Option<Tensor<2>> {
        let mut entries = self.entries();
        let at = entries.iter().position(|entry| entry.key == *key)?;
        let entry = entries.remove(at)?;
        let features = entry.features.clone();
        entries.push_back(entry);
        Some(features)
    }

    /// Keeps features. Nothing else may change their buffer.
    pub(crate) fn insert(&self, key: Key, features: &Tensor<2>) {
        let entry = Entry { key, features: features.clone() };
        let mut entries = self.entries();
        entries.retain(|old| old.key != key);
        let mut room = self.capacity_bytes.checked_sub(entry.size_bytes());
        while let Some(left) = room {
            if entries.iter().map(Entry::size_bytes).sum::<u64>() <= left {
                entries.push_back(entry);
                return;
            }
            room = entries.pop_front().and(room);
        }
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        // Every change leaves whole entries behind, so a panic elsewhere spoils nothing.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What names the photos of a prompt: their patches and grids, not the prompt.
pub(crate) fn key(prepared: &Prepared) -> Key {
    let mut hash = Sha256::new();
    for ImageGrid(grid) in &prepared.grids {
        grid.iter().for_each(|n| hash.update((*n as u64).to_le_bytes()));
    }
    for chunk in prepared.pixel_values.chunks(4096) {
        let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
        hash.update(&bytes);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use globe_ops::{Device, zeros};

    use super::*;

    fn features(rows: usize) -> Tensor<2> {
        zeros([rows, 4], &Device::flex())
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_bound_holds() {
        let cache = FeatureCache::new(100 * 16);
        let has = |n: u8| cache.get(&[n; 32]).map(|features| features.dims()[0]);
        cache.insert([1; 32], &features(40));
        cache.insert([2; 32], &features(40));
        assert_eq!(has(1), Some(40)); // 2 is older now
        cache.insert([3; 32], &features(50));
        assert_eq!((has(1), has(2), has(3)), (Some(40), None, Some(50)));
        assert_eq!(cache.size_bytes(), 90 * 16);
        cache.insert([4; 32], &features(101));
        assert_eq!((has(4), cache.size_bytes()), (None, 90 * 16), "larger than the whole");
        cache.insert([5; 32], &features(100));
        assert_eq!((has(1), has(3), has(5)), (None, None, Some(100)));
        cache.insert([5; 32], &features(10));
        assert_eq!((has(5), cache.size_bytes()), (Some(10), 160));
        cache.clear();
        assert_eq!((has(5), cache.size_bytes()), (None, 0));
        let none = FeatureCache::new(0);
        none.insert([1; 32], &features(1));
        assert!(none.get(&[1; 32]).is_none());
    }

    #[test]
    fn the_photo_counts_and_the_prompt_does_not() {
        let prepared = |grid, pixel_values: &[f32], ids: &[u32]| Prepared {
            ids: ids.to_vec(),
            grids: vec![ImageGrid(grid)],
            pixel_values: pixel_values.to_vec(),
            n_image_tokens: 1,
        };
        let first = key(&prepared([1, 2, 4], &[0.5; 9000], &[1, 2]));
        assert_eq!(first, key(&prepared([1, 2, 4], &[0.5; 9000], &[7])));
        assert_ne!(first, key(&prepared([1, 4, 2], &[0.5; 9000], &[1, 2])));
        let mut other = [0.5; 9000];
        other[8999] = 0.25;
        assert_ne!(first, key(&prepared([1, 2, 4], &other, &[1, 2])));
    }
}
