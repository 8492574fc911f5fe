//! Host memory to tensors and back.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};

use burn::backend::wgpu::CubeTensor;
use burn::tensor::{Bytes, DType, Device, Int, Tensor, TensorData};

use crate::{Error, Result};

/// A float tensor from `values`; the vector moves, it is not copied on the host.
pub fn tensor_f32<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// Lets the device take what was uploaded: until then uploads wait on the host, many at a time.
///
/// # Errors
/// [`Error::Device`] if the device was lost.
pub fn flush(device: &Device) -> Result<()> {
    device.flush().map_err(failed)
}

/// An index tensor from `values`.
pub fn tensor_i32<const D: usize>(
    values: Vec<i32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::I32))
}

/// Puts `values` into the buffer of an index tensor, behind the launches so far and before later ones.
///
/// # Errors
/// [`Error::Shape`] if there are more or fewer, [`Error::Device`] on the CPU path.
pub(crate) fn overwrite_i32<const D: usize>(
    tensor: &Tensor<D, Int>,
    values: Vec<i32>,
) -> Result<()> {
    let n = tensor.dims().iter().product();
    crate::shapes::expect("overwrite_i32", "values", [values.len()], [n])?;
    let CubeTensor { client, handle, .. } = crate::advance::int(tensor)?;
    client.write(&handle, Bytes::from_elems(values));
    Ok(())
}

/// A float tensor of zeros.
pub fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::zeros(shape, (device, DType::F32))
}

/// The values of a float tensor, once the device has computed them.
///
/// # Errors
/// [`Error::Device`] if the device failed since the last read.
pub async fn read_f32<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.into_data_async().await.map_err(failed)?;
    data.try_into_vec::<f32>().map_err(failed)
}

/// The values of an index tensor, once the device has computed them.
///
/// # Errors
/// [`Error::Device`] if the device failed since the last read.
pub async fn read_i32<const D: usize>(tensor: Tensor<D, Int>) -> Result<Vec<i32>> {
    let data = tensor.into_data_async().await.map_err(failed)?;
    data.try_into_vec::<i32>().map_err(failed)
}

/// The values of an index tensor as they are once the launches so far are done: later launches
/// may change the buffer before the values arrive. Only for tensors on an adapter.
///
/// Await it to the end: dropped half way, its staging buffer goes back to the pool still mapped.
///
/// # Errors
/// [`Error::Device`] if the device failed, or on the CPU path.
pub fn read_i32_now<const D: usize>(
    tensor: &Tensor<D, Int>,
) -> impl Future<Output = Result<Vec<i32>>> + use<D> {
    let tensor = crate::advance::int(tensor);
    let mut read = Box::pin(async move {
        let CubeTensor { client, handle, .. } = tensor?;
        let bytes = client.read_async(vec![handle]).await.map_err(failed)?;
        let words = bytes.first().map_or(&[][..], |bytes| bytes.as_chunks().0);
        Ok(words.iter().map(|word| i32::from_le_bytes(*word)).collect())
    });
    let mut poll = move |cx: &mut Context| {
        // The runtime unwraps where a buffer is gone when it has just arrived.
        let polled = catch_unwind(AssertUnwindSafe(|| read.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(failed("lost while it was read"))))
    };
    // A future does nothing until it is polled: this orders the copy behind the launches so far.
    let first = poll(&mut Context::from_waker(Waker::noop()));
    async move {
        match first {
            Poll::Ready(words) => words,
            Poll::Pending => poll_fn(poll).await,
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Device { reason: error.to_string() }
}
