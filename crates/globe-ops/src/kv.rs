//! How many words the heads of keys and values take.

use burn::backend::wgpu::CubeBackend;
use burn::tensor::Tensor;
pub use globe_shaders::KvFormat;

use crate::Result;
use crate::advance::on_gpu;
use crate::shapes::{expect, supported};

/// The format of `k` and `v`, `[slots, n_kv_heads, words]`, whose heads have `head_dim` numbers.
///
/// # Errors
/// [`crate::Error::Shape`] if they have neither, [`crate::Error::Unsupported`] if a word of two numbers
/// would reach into the next quad, [`crate::Error::Device`] for 16 bits on the CPU path.
pub(crate) fn kv_format(
    op: &'static str,
    head_dim: usize,
    k: &Tensor<3>,
    v: &Tensor<3>,
) -> Result<KvFormat> {
    let [slots, n_kv_heads, words] = k.dims();
    let is_f16 = head_dim > 1 && words == KvFormat::F16.words(head_dim);
    let format = if is_f16 { KvFormat::F16 } else { KvFormat::F32 };
    let expected = [slots, n_kv_heads, format.words(head_dim)];
    expect(op, "k", k.dims(), expected)?;
    expect(op, "v", v.dims(), expected)?;
    if is_f16 {
        let whole = head_dim.is_multiple_of(4);
        supported(op, "head_dim", head_dim, "a multiple of 4 with 16-bit keys", whole)?;
        on_gpu(k.clone().try_into_primitive::<CubeBackend>())?;
    }
    Ok(format)
}
