//! What outlives an answer: the cache, and the steps that were recorded on it.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use globe_model::{Batch, Cache, MemoryPlan};

use crate::pace::Pace;

/// A cache with the batches that were recorded on its buffers.
pub(crate) struct Room {
    pub(crate) cache: Cache,
    pub(crate) batches: Vec<(Batch, Pace)>,
    size: [usize; 3],
    bytes: u64,
}

impl Room {
    /// `size`: tokens of the prompt, tokens of an answer, answers.
    pub(crate) fn new(cache: Cache, size: [usize; 3], plan: MemoryPlan) -> Self {
        Self { cache, batches: Vec::new(), size, bytes: plan.cache + plan.decode }
    }

    /// Answers that it was made for: a short prompt leaves room for more, which nobody planned.
    pub(crate) fn answers(&self) -> usize {
        self.size[2]
    }
}

/// The one room of an engine while no session has it.
#[derive(Clone, Default)]
pub(crate) struct Keep(Arc<Place>);

#[derive(Default)]
struct Place {
    room: Mutex<Option<Room>>,
    is_closed: AtomicBool,
}

impl Keep {
    /// The room that was kept if it has this size. Another is dropped before a new one is made.
    pub(crate) fn lend(&self, size: [usize; 3], new: impl FnOnce() -> Room) -> Lent {
        let room = self.take().filter(|room| room.size == size).unwrap_or_else(new);
        Lent { room: Some(room), home: self.clone(), is_sound: AtomicBool::new(false) }
    }

    /// Bytes of what is kept, if anything is.
    pub(crate) fn bytes(&self) -> Option<u64> {
        let kept = self.0.room.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().map(|room| room.bytes)
    }

    /// Drops what is kept.
    pub(crate) fn clear(&self) {
        drop(self.take());
    }

    /// Drops what is kept, and keeps nothing from now on.
    pub(crate) fn close(&self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
        self.clear();
    }

    fn take(&self) -> Option<Room> {
        self.0.room.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A room that goes back when its session ends.
pub(crate) struct Lent {
    room: Option<Room>,
    home: Keep,
    /// Whether the model gave numbers. A cache with others would spoil the next answer: a key that a query
    /// does not see still counts with weight zero.
    is_sound: AtomicBool,
}

impl Lent {
    /// Notes whether the model gave numbers, as far as is known.
    pub(crate) fn set_sound(&self, is_sound: bool) {
        self.is_sound.store(is_sound, Ordering::Relaxed);
    }
}

impl Deref for Lent {
    type Target = Room;

    fn deref(&self) -> &Room {
        self.room.as_ref().expect("only `drop` takes it")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Room {
        self.room.as_mut().expect("only `drop` takes it")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let home = &self.home.0;
        if self.is_sound.load(Ordering::Relaxed) && !home.is_closed.load(Ordering::Relaxed) {
            *home.room.lock().unwrap_or_else(PoisonError::into_inner) = self.room.take();
        }
    }
}
