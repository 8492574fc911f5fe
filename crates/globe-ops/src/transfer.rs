//! Host memory to tensors and back.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::{Error, Result};

/// A float tensor from `values`; the vector moves, it is not copied on the host.
pub fn tensor_f32<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// An index tensor from `values`.
pub fn tensor_i32<const D: usize>(
    values: Vec<i32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::I32))
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

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Device { reason: error.to_string() }
}
