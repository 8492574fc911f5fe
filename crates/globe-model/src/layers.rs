//! Layers that every architecture here is built from.

use globe_format::Source;
use globe_ops::{
    Fused, Int, Tensor, gather_rows, linear, packed_gather, packed_linear, packed_linear_backward,
    rms_norm, rms_norm_backward, swiglu, zeros,
};

use crate::Result;
use crate::gradients::{LinearSums, WeightGradient};
use crate::lora::{Lora, dense_backward};
use crate::weight_parameters::TensorMut;
use crate::weights::{Matrix, Weights};

/// `x weight^T + bias`, with what stands before and after it.
pub(crate) struct Linear {
    weight: Matrix,
    bias: Option<Tensor<1>>,
    /// The adapter, if there is one.
    pub(crate) lora: Option<Lora>,
}

impl Linear {
    /// The tensors `{name}.weight` and, if the model has it, `{name}.bias`.
    pub(crate) async fn load<S: Source>(w: &Weights<'_, S>, name: &str) -> Result<Self> {
        let weight = w.matrix(&format!("{name}.weight")).await?;
        let bias = format!("{name}.bias");
        let bias = if w.has(&bias) { Some(w.vector(&bias).await?) } else { None };
        Ok(Self { weight, bias, lora: None })
    }

    /// A head that shares the embedding table.
    pub(crate) fn tied(table: &Embedding) -> Self {
        Self { weight: table.0.clone(), bias: None, lora: None }
    }

    /// Bytes of the weight on the device.
    pub(crate) fn size_bytes(&self) -> u64 {
        match &self.weight {
            Matrix::Dense(weight) => 4 * weight.dims().iter().product::<usize>() as u64,
            Matrix::Packed(weight) => weight.size_bytes(),
        }
    }

    /// The product alone.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>> {
        self.apply(x, Fused::default())
    }

    /// The product of the norm of `x`.
    pub(crate) fn forward_normed(&self, x: Tensor<2>, norm: &RmsNorm) -> Result<Tensor<2>> {
        self.apply(x, Fused { norm: Some(norm.parts()), ..Fused::default() })
    }

    /// The product and `residual`.
    pub(crate) fn forward_add(&self, x: Tensor<2>, residual: Tensor<2>) -> Result<Tensor<2>> {
        self.apply(x, Fused { residual: Some(residual), ..Fused::default() })
    }

    fn apply(&self, x: Tensor<2>, fused: Fused) -> Result<Tensor<2>> {
        if let Some(lora) = self.lora.as_ref().filter(|lora| lora.on) {
            return self.apply_adapted(lora, x, fused);
        }
        match &self.weight {
            Matrix::Packed(weight) => Ok(packed_linear(x, weight, self.bias.as_ref(), fused)?),
            Matrix::Dense(weight) => dense(x, weight, self.bias.as_ref(), fused),
        }
    }

    /// The same with the adapter, which stands between the product and SwiGLU.
    fn apply_adapted(&self, lora: &Lora, x: Tensor<2>, fused: Fused) -> Result<Tensor<2>> {
        let [rows, _] = x.dims();
        let takes_norm = match &self.weight {
            Matrix::Packed(weight) => weight.takes_norm(rows),
            Matrix::Dense(_) => false,
        };
        let (x, norm) = match fused.norm {
            Some((norm, eps)) if !takes_norm => (rms_norm(x, norm, eps)?, None),
            norm => (x, norm),
        };
        let residual = if fused.swiglu { None } else { fused.residual };
        let plain = Fused { norm, residual, swiglu: false };
        let y = match &self.weight {
            Matrix::Packed(weight) => packed_linear(x.clone(), weight, self.bias.as_ref(), plain)?,
            Matrix::Dense(weight) => dense(x.clone(), weight, self.bias.as_ref(), plain)?,
        };
        let y = lora.forward_add(x, norm, y)?;
        if fused.swiglu { Ok(swiglu(y)?) } else { Ok(y) }
    }

    /// Gradient of the input from that of the output, `dx = dy weight` and what the adapter adds;
    /// gradients of what is trained are added to `sums`.
    pub(crate) fn backward(
        &self,
        x: Tensor<2>,
        dy: Tensor<2>,
        sums: LinearSums,
    ) -> Result<Tensor<2>> {
        self.backward_weight(&x, &dy, sums.weight, sums.bias)?;
        let dx = match &self.weight {
            Matrix::Packed(weight) => packed_linear_backward(dy.clone(), weight, None)?,
            Matrix::Dense(weight) => dense_backward(dy.clone(), weight, None)?,
        };
        match (self.lora.as_ref().filter(|lora| lora.on), sums.pair) {
            (Some(lora), Some(sum)) => lora.backward_add(x, dy, dx, sum),
            _ => Ok(dx),
        }
    }

    /// The gradients of weight and bias alone.
    pub(crate) fn backward_weight(
        &self,
        x: &Tensor<2>,
        dy: &Tensor<2>,
        weight: Option<&mut WeightGradient>,
        bias: Option<&mut WeightGradient>,
    ) -> Result<()> {
        if let Some(sum) = weight {
            sum.add_product(dy, x)?;
        }
        match bias {
            Some(sum) => sum.add_columns(dy),
            None => Ok(()),
        }
    }

    /// Weight and bias, to be changed.
    pub(crate) fn tensors_mut(&mut self) -> impl Iterator<Item = TensorMut<'_>> {
        let bias = self.bias.as_mut().map(TensorMut::Vector);
        std::iter::once(TensorMut::Matrix(&mut self.weight)).chain(bias)
    }

    /// The matrix of a head that shares the embedding table, to be replaced by the table.
    pub(crate) fn weight_mut(&mut self) -> &mut Matrix {
        &mut self.weight
    }
}

/// The same by the reference kernels, one after the other.
fn dense(
    x: Tensor<2>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    fused: Fused,
) -> Result<Tensor<2>> {
    let x = match fused.norm {
        Some((norm, eps)) => rms_norm(x, norm, eps)?,
        None => x,
    };
    let [outputs, _] = weight.dims();
    let none = zeros([outputs], &x.device());
    let mut y = linear(x, weight, bias.unwrap_or(&none))?;
    if fused.swiglu {
        y = swiglu(y)?;
    }
    Ok(match fused.residual {
        Some(residual) => y + residual,
        None => y,
    })
}

/// Rows of a table by token.
pub(crate) struct Embedding(Matrix);

impl Embedding {
    /// The tensor `{name}.weight`.
    pub(crate) async fn load<S: Source>(w: &Weights<'_, S>, name: &str) -> Result<Self> {
        Ok(Self(w.matrix(&format!("{name}.weight")).await?))
    }

    /// `ids: [tokens]` within the table, returns `[tokens, hidden]`.
    pub(crate) fn forward(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        match &self.0 {
            Matrix::Dense(table) => gather_rows(table, ids),
            Matrix::Packed(table) => packed_gather(table, ids),
        }
    }

    /// The table, to be changed.
    pub(crate) fn tensor_mut(&mut self) -> TensorMut<'_> {
        TensorMut::Matrix(&mut self.0)
    }
}

/// Root-mean-square norm over the last dimension.
pub(crate) struct RmsNorm {
    weight: Tensor<1>,
    eps: f32,
}

impl RmsNorm {
    /// The tensor `{name}.weight`.
    pub(crate) async fn load<S: Source>(w: &Weights<'_, S>, name: &str, eps: f32) -> Result<Self> {
        Ok(Self { weight: w.vector(&format!("{name}.weight")).await?, eps })
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>> {
        Ok(rms_norm(x, &self.weight, self.eps)?)
    }

    /// Gradient of the input from that of the output, and `residual`; the gradient of the weight is
    /// added to `sum`.
    pub(crate) fn backward(
        &self,
        x: Tensor<2>,
        dy: Tensor<2>,
        residual: Option<Tensor<2>>,
        sum: Option<&mut WeightGradient>,
    ) -> Result<Tensor<2>> {
        if let Some(sum) = sum {
            sum.add_norm(&x, &dy, self.eps)?;
        }
        Ok(rms_norm_backward(x, &self.weight, dy, self.eps, residual)?)
    }

    /// The weight, to be changed.
    pub(crate) fn tensor_mut(&mut self) -> TensorMut<'_> {
        TensorMut::Vector(&mut self.weight)
    }

    fn parts(&self) -> (&Tensor<1>, f32) {
        (&self.weight, self.eps)
    }
}

/// SwiGLU: down(silu(gate(x)) * up(x)). Rows of gate and up alternate in one matrix.
pub(crate) struct Mlp {
    pub(crate) gate_up: Linear,
    pub(crate) down_proj: Linear,
}

impl Mlp {
    pub(crate) async fn load<S: Source>(w: &Weights<'_, S>, name: &str) -> Result<Self> {
        Ok(Self {
            gate_up: Linear::load(w, &format!("{name}.gate_up")).await?,
            down_proj: Linear::load(w, &format!("{name}.down_proj")).await?,
        })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.gate_up.size_bytes() + self.down_proj.size_bytes()
    }

    /// `x + mlp(norm(x))`.
    pub(crate) fn forward_add(&self, x: Tensor<2>, norm: &RmsNorm) -> Result<Tensor<2>> {
        let fused = Fused { norm: Some(norm.parts()), residual: None, swiglu: true };
        let hidden = self.gate_up.apply(x.clone(), fused)?; // [tokens, intermediate]
        self.down_proj.forward_add(hidden, x) // [tokens, hidden]
    }
}
