//! One transformer block in training: what layers of the language model and blocks of the tower have
//! in common, `x + out(attention(norm(x)))` and then `x + mlp(norm(x))`.

use globe_ops::{
    Int, SavedAttention, Tensor, Variant, attention_backward, attention_with_lse, rotary_split,
    rotary_split_backward, swiglu, swiglu_backward, zeros,
};

use crate::Result;
use crate::gradients::BlockSums;
use crate::layers::{Linear, Mlp, RmsNorm};

/// The parts of a block.
pub(super) struct Block<'a> {
    pub(super) first_norm: &'a RmsNorm,
    pub(super) qkv: &'a Linear,
    pub(super) out: &'a Linear,
    pub(super) second_norm: &'a RmsNorm,
    pub(super) mlp: &'a Mlp,
}

/// What a block reads besides its input.
#[derive(Clone)]
pub(super) struct BlockContext {
    pub(super) rotary_table: Tensor<2>,
    pub(super) positions: Tensor<2, Int>,  // [axes, tokens]
    pub(super) slots: Tensor<1, Int>,      // [tokens], each in its own place
    pub(super) ranges: Tensor<2, Int>,     // [tokens, 2], keys of each query besides the prefix
    pub(super) key_ranges: Tensor<2, Int>, // [tokens, 2], queries of each key
    pub(super) prefix: usize,
    pub(super) n_heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) sections: Vec<usize>,
    pub(super) variant: Variant,
}

impl BlockContext {
    fn scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }
}

/// Activations of one block.
pub(super) struct Activations {
    x_normed: Tensor<2>, // [tokens, hidden]
    q: Tensor<3>,        // [tokens, n_heads, head_dim]
    k: Tensor<3>,        // [tokens, n_kv_heads, head_dim]
    v: Tensor<3>,        // as k
    y: Tensor<3>,        // as q
    lse: Tensor<2>,      // [tokens, n_heads]
    x_mid: Tensor<2>,    // [tokens, hidden], after the attention
    mid_normed: Tensor<2>,
    gate_up: Tensor<2>,        // [tokens, 2 * intermediate]
    gated: Tensor<2>,          // [tokens, intermediate]
    pub(super) out: Tensor<2>, // [tokens, hidden]
}

impl Activations {
    /// Bytes of all of them.
    pub(super) fn size_bytes(&self) -> usize {
        let matrices = [
            &self.x_normed,
            &self.lse,
            &self.x_mid,
            &self.mid_normed,
            &self.gate_up,
            &self.gated,
            &self.out,
        ];
        let heads = [&self.q, &self.k, &self.v, &self.y];
        let matrices = matrices.into_iter().map(|t| t.dims().iter().product::<usize>());
        let heads = heads.into_iter().map(|t| t.dims().iter().product::<usize>());
        size_of::<f32>() * matrices.chain(heads).sum::<usize>()
    }
}

impl Block<'_> {
    /// The block on a whole sequence: `x: [tokens, hidden]`.
    pub(super) fn activations(&self, x: Tensor<2>, ctx: &BlockContext) -> Result<Activations> {
        let ([tokens, _], device) = (x.dims(), x.device());
        let x_normed = self.first_norm.forward(x.clone())?;
        let qkv = self.qkv.forward(x_normed.clone())?;
        let buffer = || zeros([tokens, ctx.n_kv_heads, ctx.head_dim], &device);
        let (q, k, v) = rotary_split(
            qkv,
            &ctx.rotary_table,
            &ctx.positions,
            &ctx.slots,
            buffer(),
            buffer(),
            ctx.n_heads,
            &ctx.sections,
        )?;
        let (y, lse) = attention_with_lse(
            q.clone(),
            k.clone(),
            v.clone(),
            &ctx.ranges,
            ctx.prefix,
            ctx.scale(),
            ctx.variant,
        )?;
        let flat = y.clone().reshape([tokens, ctx.n_heads * ctx.head_dim]);
        let x_mid = self.out.forward_add(flat, x)?;
        let mid_normed = self.second_norm.forward(x_mid.clone())?;
        let gate_up = self.mlp.gate_up.forward(mid_normed.clone())?;
        let gated = swiglu(gate_up.clone())?;
        let out = self.mlp.down_proj.forward_add(gated.clone(), x_mid.clone())?;
        Ok(Activations { x_normed, q, k, v, y, lse, x_mid, mid_normed, gate_up, gated, out })
    }

    /// Gradient of the input from that of the output; the block runs again for its activations unless
    /// they were kept.
    pub(super) fn backward(
        &self,
        x: Tensor<2>,
        kept: Option<Activations>,
        dx_out: Tensor<2>,
        ctx: &BlockContext,
        sums: BlockSums,
    ) -> Result<Tensor<2>> {
        let saved = match kept {
            Some(saved) => saved,
            None => self.activations(x.clone(), ctx)?,
        };
        let mlp = &self.mlp;
        let dgated = mlp.down_proj.backward(saved.gated, dx_out.clone(), sums.down)?;
        let dgate_up = swiglu_backward(saved.gate_up, dgated)?;
        let dnormed = mlp.gate_up.backward(saved.mid_normed, dgate_up, sums.gate_up)?;
        let residual = Some(dx_out);
        let dmid = self.second_norm.backward(saved.x_mid, dnormed, residual, sums.second_norm)?;

        let [tokens, _] = x.dims();
        let flat = saved.y.clone().reshape([tokens, ctx.n_heads * ctx.head_dim]);
        let dy = self.out.backward(flat, dmid.clone(), sums.out)?;
        let dy = dy.reshape([tokens, ctx.n_heads, ctx.head_dim]);
        let attention = SavedAttention {
            q: saved.q,
            k: saved.k,
            v: saved.v,
            y: saved.y,
            lse: saved.lse,
            ranges: ctx.ranges.clone(),
            prefix: ctx.prefix,
            scale: ctx.scale(),
            variant: ctx.variant,
        };
        let (dq, dk, dv) = attention_backward(attention, dy, &ctx.key_ranges)?;
        let (table, positions) = (&ctx.rotary_table, &ctx.positions);
        let dqkv = rotary_split_backward(dq, dk, dv, table, positions, &ctx.sections)?;
        let dnormed = self.qkv.backward(saved.x_normed, dqkv, sums.qkv)?;
        self.first_norm.backward(x, dnormed, Some(dmid), sums.first_norm)
    }
}
