//! Bytes of a model into device memory.

use std::borrow::Cow;

use burn::backend::wgpu::CubeTensor;
use burn::tensor::wgpu::wgpu;
use burn::tensor::{DType, Int, Tensor, TensorData};
use cubecl::wgpu::WgpuResource;

use crate::raw_loop::{RawQueue, resource};
use crate::{Compute, Error, Result, advance, flush};

/// Bytes handed over at once. Two pieces are under way, so their staging memory serves again while it is in cache:
/// measured against pieces of 4 MiB and against whole tensors (LOG.md).
const PIECE_BYTES: usize = 1 << 20;

/// Little-endian words as an index tensor, without a copy on the host where `bytes` lie in a mapped file.
/// They have left `bytes` when this returns.
///
/// # Errors
/// [`Error::Device`] if the device was lost or has no memory left.
pub(crate) fn upload_words(bytes: Cow<'_, [u8]>, compute: &Compute) -> Result<Tensor<1, Int>> {
    let n = bytes.len() / 4;
    let Some(raw) = compute.raw_queue() else {
        let data = TensorData::from_bytes_vec(bytes.into_owned(), [n], DType::I32);
        let words = Tensor::from_data(data, (&compute.device, DType::I32));
        flush(&compute.device)?; // or many of them would wait on the host
        return Ok(words);
    };
    let words = Tensor::empty([n], (&compute.device, DType::I32));
    let buffer: CubeTensor = advance::int(&words)?;
    // Kernels that read what lay there before are ahead in the queue then.
    flush(&compute.device)?;
    raw.write(&resource(&buffer)?, &bytes)?;
    Ok(words)
}

impl RawQueue {
    /// Puts `bytes` at the start of a buffer, a piece at a time.
    fn write(&self, resource: &WgpuResource, bytes: &[u8]) -> Result<()> {
        let mut under_way = None;
        for (i, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let offset = resource.offset + (i * PIECE_BYTES) as u64;
            self.queue.write_buffer(&resource.buffer, offset, piece);
            let submission_index = Some(self.queue.submit([]));
            if under_way.is_some() {
                self.wait(under_way)?;
            }
            under_way = submission_index;
        }
        Ok(())
    }

    /// Waits until a submission is done; the last of all if it is `None`.
    pub(crate) fn wait(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let until = wgpu::PollType::Wait { submission_index, timeout: None };
        let polled = self.device.poll(until);
        polled.map(|_| ()).map_err(|e| Error::Device { reason: e.to_string() })
    }
}
