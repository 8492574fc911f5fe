//! Bytes of a model into device memory.

use burn::tensor::wgpu::wgpu;
use burn::tensor::{DType, Int, Tensor, TensorData};
use cubecl::wgpu::WgpuResource;

use crate::packed::as_values;
use crate::raw_loop::{RawQueue, pinned};
use crate::{Compute, Error, Result, advance, flush};

/// Bytes handed over at once, with what waits before them. Two submissions are under way, so their staging memory serves
/// again while it is in cache: measured against pieces of 4 MiB and against whole tensors (LOG.md).
const PIECE_BYTES: usize = 1 << 20;

/// Little-endian words on their way into device memory, for which there is room from the start: asking CubeCL for each
/// room when its bytes come keeps its thread awake, on a core that the driver needs (LOG.md).
pub struct Uploads<'a> {
    pub(crate) compute: &'a Compute,
    raw: Option<RawQueue>,
    rooms: Vec<Option<Room>>,
    /// Bytes given to wgpu and not submitted.
    waiting: usize,
    under_way: Option<wgpu::SubmissionIndex>,
}

/// One tensor to be.
struct Room {
    n_bytes: usize,
    done: usize,
    place: Place,
}

enum Place {
    Adapter(Box<Buffer>),
    /// The CPU path.
    Host(Vec<u8>),
}

struct Buffer {
    words: Tensor<1, Int>,
    resource: WgpuResource,
    _pin: Box<dyn Send>,
}

impl<'a> Uploads<'a> {
    /// Makes a room for each of `sizes`, in bytes, multiples of 4 above 0.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the adapter cannot bind one, [`Error::Device`] if it was lost or has no memory left.
    pub fn begin(sizes: &[usize], compute: &'a Compute) -> Result<Self> {
        sizes.iter().try_for_each(|size| compute.check_binding(*size as u64))?;
        let raw = compute.raw_queue();
        let places = match raw {
            Some(_) => on_adapter(sizes, compute)?,
            None => sizes.iter().map(|_| Place::Host(Vec::new())).collect(),
        };
        let room =
            |(n_bytes, place): (&usize, Place)| Some(Room { n_bytes: *n_bytes, done: 0, place });
        let rooms = sizes.iter().zip(places).map(room).collect();
        Ok(Self { compute, raw, rooms, waiting: 0, under_way: None })
    }

    /// Appends `bytes`, a multiple of 4, to what room `i` holds; they have left `bytes` when this returns.
    ///
    /// # Errors
    /// [`Error::Shape`] if they are more than it has room for, [`Error::Device`] if the device was lost.
    ///
    /// # Panics
    /// If there is no such room, or it was emptied.
    pub fn write(&mut self, i: usize, bytes: &[u8]) -> Result<()> {
        let Self { raw, rooms, waiting, under_way, .. } = self;
        let room = room(rooms, i);
        let all = room.done + bytes.len();
        if all > room.n_bytes || !bytes.len().is_multiple_of(4) {
            return Err(incomplete(all, room.n_bytes));
        }
        match (&mut room.place, raw) {
            (Place::Adapter(buffer), Some(raw)) => {
                let Buffer { resource, .. } = &**buffer;
                for (i, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
                    let offset = resource.offset + (room.done + i * PIECE_BYTES) as u64;
                    raw.queue.write_buffer(&resource.buffer, offset, piece);
                    *waiting += piece.len();
                    if *waiting >= PIECE_BYTES {
                        raw.submit_next(waiting, under_way)?;
                    }
                }
            }
            (Place::Host(held), _) => {
                held.reserve_exact(room.n_bytes - held.len());
                held.extend_from_slice(bytes);
            }
            (Place::Adapter(_), None) => unreachable!("rooms are where the queue is"),
        }
        room.done = all;
        Ok(())
    }

    /// The words of room `i`, all of which have come: they are there for whatever is submitted from now on.
    ///
    /// # Errors
    /// [`Error::Shape`] if bytes are missing, [`Error::Device`] if the device was lost.
    ///
    /// # Panics
    /// If there is no such room, or it was emptied before.
    pub fn words(&mut self, i: usize) -> Result<Tensor<1, Int>> {
        let Room { n_bytes, done, place } = self.rooms[i].take().expect("a room is emptied once");
        if done != n_bytes {
            return Err(incomplete(done, n_bytes));
        }
        match place {
            Place::Adapter(buffer) => Ok(buffer.words),
            Place::Host(bytes) => {
                let data = TensorData::from_bytes_vec(bytes, [n_bytes / 4], DType::I32);
                let words = Tensor::from_data(data, (&self.compute.device, DType::I32));
                flush(&self.compute.device)?; // or many of them would wait on the host
                Ok(words)
            }
        }
    }

    /// As [`Self::words`], for a room of f32 values on an adapter.
    ///
    /// # Errors
    /// As [`Self::words`]; [`Error::Device`] on the CPU path.
    ///
    /// # Panics
    /// As [`Self::words`].
    pub fn values(&mut self, i: usize) -> Result<Tensor<1>> {
        let words = self.words(i)?;
        Ok(as_values(advance::int(&words)?, words.dims()))
    }
}

impl Drop for Uploads<'_> {
    /// What was written and not submitted would lie in wgpu's staging memory until something else is.
    fn drop(&mut self) {
        if let (Some(raw), 1..) = (&self.raw, self.waiting) {
            raw.queue.submit([]);
        }
    }
}

fn room(rooms: &mut [Option<Room>], i: usize) -> &mut Room {
    rooms[i].as_mut().expect("a room is filled before it is emptied")
}

fn incomplete(got: usize, expected: usize) -> Error {
    Error::Shape { op: "upload", what: "bytes", expected: vec![expected], got: vec![got] }
}

/// Buffers of an adapter.
fn on_adapter(sizes: &[usize], compute: &Compute) -> Result<Vec<Place>> {
    let empty = |size: &usize| -> Tensor<1, Int> {
        Tensor::empty([size / 4], (&compute.device, DType::I32))
    };
    let all: Vec<_> = sizes.iter().map(empty).collect();
    // Kernels that read what lay there before are ahead in the queue then.
    flush(&compute.device)?;
    let place = |words: Tensor<1, Int>| -> Result<Place> {
        let (resource, pin) = pinned(&advance::int(&words)?)?;
        Ok(Place::Adapter(Box::new(Buffer { words, resource, _pin: pin })))
    };
    all.into_iter().map(place).collect()
}

impl RawQueue {
    /// Submits what waits, and waits for the submission before it.
    fn submit_next(
        &self,
        waiting: &mut usize,
        under_way: &mut Option<wgpu::SubmissionIndex>,
    ) -> Result<()> {
        *waiting = 0;
        let submission = self.queue.submit([]);
        under_way.replace(submission).map_or(Ok(()), |before| self.wait(Some(before)))
    }

    /// Waits until a submission is done; the last of all if it is `None`.
    pub(crate) fn wait(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let until = wgpu::PollType::Wait { submission_index, timeout: None };
        let polled = self.device.poll(until);
        polled.map(|_| ()).map_err(|e| Error::Device { reason: e.to_string() })
    }
}
