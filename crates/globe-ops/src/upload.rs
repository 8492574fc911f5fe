//! Bytes of a model into device memory.

use burn::backend::wgpu::CubeTensor;
use burn::tensor::wgpu::wgpu;
use burn::tensor::{DType, Int, Tensor, TensorData};
use cubecl::wgpu::WgpuResource;

use crate::raw_loop::{RawQueue, resource};
use crate::{Compute, Error, Result, advance, flush};

/// Bytes handed over at once. Two pieces are under way, so their staging memory serves again while it is in cache:
/// measured against pieces of 4 MiB and against whole tensors (LOG.md).
const PIECE_BYTES: usize = 1 << 20;

/// Little-endian words on their way into device memory. They are there when the tensor is.
pub(crate) struct Upload<'a> {
    n_bytes: usize,
    done: usize,
    place: Place<'a>,
}

enum Place<'a> {
    Adapter(Box<OnAdapter>),
    /// The CPU path.
    Host {
        bytes: Vec<u8>,
        compute: &'a Compute,
    },
}

/// A buffer of the adapter, and the piece that is under way.
struct OnAdapter {
    words: Tensor<1, Int>,
    resource: WgpuResource,
    raw: RawQueue,
    under_way: Option<wgpu::SubmissionIndex>,
}

impl<'a> Upload<'a> {
    /// Makes room for `n_bytes`, a multiple of 4.
    ///
    /// # Errors
    /// [`Error::Device`] if the device was lost or has no memory left.
    pub(crate) fn begin(n_bytes: usize, compute: &'a Compute) -> Result<Self> {
        let Some(raw) = compute.raw_queue() else {
            let place = Place::Host { bytes: Vec::with_capacity(n_bytes), compute };
            return Ok(Self { n_bytes, done: 0, place });
        };
        let words = Tensor::empty([n_bytes / 4], (&compute.device, DType::I32));
        let buffer: CubeTensor = advance::int(&words)?;
        // Kernels that read what lay there before are ahead in the queue then.
        flush(&compute.device)?;
        let resource = resource(&buffer)?;
        let place = OnAdapter { words, resource, raw, under_way: None };
        Ok(Self { n_bytes, done: 0, place: Place::Adapter(Box::new(place)) })
    }

    /// Bytes that there is room for.
    pub(crate) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Bytes that have come.
    pub(crate) fn done(&self) -> usize {
        self.done
    }

    /// Appends `bytes`, a multiple of 4 and no more than there is room for; they have left `bytes` when this returns.
    ///
    /// # Errors
    /// [`Error::Device`] if the device was lost.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.place {
            Place::Host { bytes: all, .. } => all.extend_from_slice(bytes),
            Place::Adapter(place) => {
                let OnAdapter { resource, raw, under_way, .. } = &mut **place;
                for (i, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
                    let offset = resource.offset + (self.done + i * PIECE_BYTES) as u64;
                    raw.queue.write_buffer(&resource.buffer, offset, piece);
                    let submission = raw.queue.submit([]);
                    if let Some(before) = under_way.replace(submission) {
                        raw.wait(Some(before))?;
                    }
                }
            }
        }
        self.done += bytes.len();
        Ok(())
    }

    /// The tensor, when all bytes have come.
    ///
    /// # Errors
    /// [`Error::Device`] if the device was lost.
    pub(crate) fn finish(self) -> Result<Tensor<1, Int>> {
        match self.place {
            Place::Adapter(place) => Ok(place.words),
            Place::Host { bytes, compute } => {
                let n = bytes.len() / 4;
                let data = TensorData::from_bytes_vec(bytes, [n], DType::I32);
                let words = Tensor::from_data(data, (&compute.device, DType::I32));
                flush(&compute.device)?; // or many of them would wait on the host
                Ok(words)
            }
        }
    }
}

impl RawQueue {
    /// Waits until a submission is done; the last of all if it is `None`.
    pub(crate) fn wait(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let until = wgpu::PollType::Wait { submission_index, timeout: None };
        let polled = self.device.poll(until);
        polled.map(|_| ()).map_err(|e| Error::Device { reason: e.to_string() })
    }
}
