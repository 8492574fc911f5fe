//! Layers that every architecture here is built from.

use globe_format::Source;
use globe_ops::{Tensor, add_rms_norm, linear, rms_norm, silu_mul, zeros};

use crate::Result;
use crate::weights::Weights;

/// `x weight^T + bias`.
pub(crate) struct Linear {
    weight: Tensor<2>, // [outputs, inputs]
    bias: Tensor<1>,   // [outputs], zeros if the checkpoint has none
}

impl Linear {
    pub(crate) async fn load<S: Source>(w: &Weights<'_, S>) -> Result<Self> {
        Self::load_part(w, 0, 1).await
    }

    /// Part `index` of `parts` equal groups of outputs, as a layer of its own.
    pub(crate) async fn load_part<S: Source>(
        w: &Weights<'_, S>,
        index: usize,
        parts: usize,
    ) -> Result<Self> {
        let weight = w.matrix_part("weight", index, parts).await?;
        let [outputs, _] = weight.dims();
        let bias = match w.has("bias") {
            true => w.vector_part("bias", index, parts).await?,
            false => zeros([outputs], w.device()),
        };
        Ok(Self { weight, bias })
    }

    /// A head that shares the embedding table.
    pub(crate) fn tied(table: Tensor<2>) -> Self {
        let [outputs, _] = table.dims();
        let bias = zeros([outputs], &table.device());
        Self { weight: table, bias }
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>> {
        Ok(linear(x, &self.weight, &self.bias)?)
    }
}

/// Root-mean-square norm over the last dimension.
pub(crate) struct RmsNorm {
    weight: Tensor<1>,
    eps: f32,
}

impl RmsNorm {
    pub(crate) async fn load<S: Source>(w: &Weights<'_, S>, eps: f32) -> Result<Self> {
        Ok(Self { weight: w.vector("weight").await?, eps })
    }

    /// The norm of `x + residual` and the sum itself: `(sum, norm)`.
    pub(crate) fn add(&self, x: Tensor<2>, residual: Tensor<2>) -> Result<(Tensor<2>, Tensor<2>)> {
        Ok(add_rms_norm(x, residual, &self.weight, self.eps)?)
    }
}

/// A residual stream whose last addition is still open, so that the next norm takes it along.
pub(crate) struct Residual {
    x: Tensor<2>,
    open: Option<Tensor<2>>,
}

impl Residual {
    pub(crate) fn new(x: Tensor<2>) -> Self {
        Self { x, open: None }
    }

    pub(crate) fn with_open(x: Tensor<2>, open: Tensor<2>) -> Self {
        Self { x, open: Some(open) }
    }

    /// Closes the addition: the stream and its norm.
    pub(crate) fn norm(self, norm: &RmsNorm) -> Result<(Tensor<2>, Tensor<2>)> {
        match self.open {
            Some(open) => norm.add(self.x, open),
            None => {
                let y = rms_norm(self.x.clone(), &norm.weight, norm.eps)?;
                Ok((self.x, y))
            }
        }
    }
}

/// SwiGLU: down(silu(gate(x)) * up(x)).
pub(crate) struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    pub(crate) async fn load<S: Source>(w: &Weights<'_, S>) -> Result<Self> {
        Ok(Self {
            gate_proj: Linear::load(&w.at("gate_proj")).await?,
            up_proj: Linear::load(&w.at("up_proj")).await?,
            down_proj: Linear::load(&w.at("down_proj")).await?,
        })
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>> {
        let gate = self.gate_proj.forward(x.clone())?; // [tokens, intermediate]
        let up = self.up_proj.forward(x)?;
        self.down_proj.forward(silu_mul(gate, up)?) // [tokens, hidden]
    }
}
