//! The training pass of the tower: features of photos, and gradients of its weights.

use globe_ops::{
    Int, Tensor, gather_rows, gelu, gelu_backward, key_ranges, scatter_rows, tensor_f32,
    tensor_i32, zeros,
};

use super::block::{Block, BlockContext};
use super::{PatchMerger, Qwen2_5Vl, VisionBlock, VisionContext};
use crate::gradients::{Gradients, LinearSums};
use crate::{Error, ImageGrid, Result, VisionConfig, VisionLayout};

/// What the backward pass of the tower needs of its forward pass.
pub struct VisionPass {
    /// Features of the images, `[image tokens, hidden]`.
    pub features: Tensor<2>,
    pixel_values: Tensor<2>,
    layout: VisionLayout,
    /// Input of every block and the output of the last.
    inputs: Vec<Tensor<2>>,
}

impl Qwen2_5Vl {
    /// Features of the images, with what [`Qwen2_5Vl::backward_images`] needs.
    ///
    /// # Errors
    /// As [`Qwen2_5Vl::encode_images`].
    pub fn forward_images(&self, pixel_values: &[f32], grids: &[ImageGrid]) -> Result<VisionPass> {
        let cfg = &self.config.vision;
        let visual = self.visual.as_ref().ok_or(Error::VisionReleased)?;
        let layout = VisionLayout::new(grids, cfg)?;
        let pixel_values = self.patches(pixel_values.to_vec(), &layout)?;
        let contexts = self.block_contexts(&layout);
        let patches = layout.patch_order.len();
        let order = tensor_i32(layout.patch_order.clone(), [patches], &self.device);
        let mut x = gather_rows(&visual.patch_embed.forward(pixel_values.clone())?, order);
        let mut inputs = Vec::with_capacity(visual.blocks.len() + 1);
        for (i, block) in visual.blocks.iter().enumerate() {
            inputs.push(x.clone());
            x = block.block().activations(x, contexts.of(i, cfg))?.out;
        }
        inputs.push(x.clone());
        let merged = visual.merger.forward(x, cfg)?;
        let n_tokens = layout.token_places.len();
        let places = tensor_i32(layout.token_places.clone(), [n_tokens], &self.device);
        let features = gather_rows(&merged, places);
        Ok(VisionPass { features, pixel_values, layout, inputs })
    }

    /// Adds the gradients of the tower to `sum`, from those of its features.
    ///
    /// # Errors
    /// [`Error::Ops`] if `dfeatures` has another shape than the features.
    pub fn backward_images(
        &self,
        mut pass: VisionPass,
        dfeatures: Tensor<2>,
        sum: &mut Gradients,
    ) -> Result<()> {
        let (cfg, device) = (&self.config.vision, &self.device);
        let visual = self.visual.as_ref().ok_or(Error::VisionReleased)?;
        let n_tokens = pass.layout.token_places.len();
        let places = tensor_i32(pass.layout.token_places.clone(), [n_tokens], device);
        let dmerged = scatter_rows(zeros(dfeatures.dims(), device), dfeatures, places)?;
        let Some(x) = pass.inputs.pop() else { return Ok(()) };
        let mut dx = visual.merger.backward(x, dmerged, cfg, self.places().merger, sum)?;
        let contexts = self.block_contexts(&pass.layout);
        for (i, block) in visual.blocks.iter().enumerate().rev() {
            let Some(x) = pass.inputs.pop() else { break };
            let sums = Self::block_sums(sum, i);
            dx = block.block().backward(x, None, dx, contexts.of(i, cfg), sums)?;
        }
        // From window order back to the order in which patches arrived.
        let patches = pass.layout.patch_order.len();
        let order = tensor_i32(pass.layout.patch_order, [patches], device);
        let dx = scatter_rows(zeros(dx.dims(), device), dx, order)?;
        visual.patch_embed.backward_weight(&pass.pixel_values, &dx, sum.weight(0), None)
    }

    /// Patches on the device, their number checked: `[patches, values]`.
    pub(super) fn patches(
        &self,
        pixel_values: Vec<f32>,
        layout: &VisionLayout,
    ) -> Result<Tensor<2>> {
        let (patches, values) = (layout.patch_order.len(), self.config.vision.patch_values());
        if pixel_values.len() != patches * values {
            let (expected, got) = (vec![patches, values], vec![pixel_values.len()]);
            let (op, what) = ("encode_images", "pixel_values");
            return Err(globe_ops::Error::Shape { op, what, expected, got }.into());
        }
        Ok(tensor_f32(pixel_values, [patches, values], &self.device))
    }

    fn block_contexts(&self, layout: &VisionLayout) -> Contexts {
        let ctx = VisionContext::new(layout, &self.config.vision, &self.device, self.heads.variant);
        let n = layout.patch_order.len();
        let context = |ranges: &Tensor<2, Int>, pairs: &[[i32; 2]]| {
            let keys = key_ranges(pairs, 0, n);
            BlockContext {
                rotary_table: ctx.rotary_table.clone(),
                positions: ctx.positions.clone(),
                slots: ctx.slots.clone(),
                ranges: ranges.clone(),
                key_ranges: tensor_i32(keys.as_flattened().to_vec(), [n, 2], &self.device),
                prefix: 0,
                n_heads: ctx.n_heads,
                n_kv_heads: ctx.n_heads,
                head_dim: ctx.head_dim,
                sections: vec![ctx.head_dim / 4; 2],
                variant: ctx.variant,
            }
        };
        Contexts {
            window: context(&ctx.window_ranges, &layout.window_ranges),
            full: context(&ctx.full_ranges, &layout.full_ranges),
        }
    }
}

/// What blocks read that attend within a window, and within a frame.
struct Contexts {
    window: BlockContext,
    full: BlockContext,
}

impl Contexts {
    fn of(&self, block: usize, cfg: &VisionConfig) -> &BlockContext {
        if cfg.fullatt_block_indexes.contains(&block) { &self.full } else { &self.window }
    }
}

impl VisionBlock {
    fn block(&self) -> Block<'_> {
        Block {
            first_norm: &self.norm1,
            qkv: &self.attn.qkv,
            out: &self.attn.proj,
            second_norm: &self.norm2,
            mlp: &self.mlp,
        }
    }
}

impl PatchMerger {
    /// Gradient of the patches from that of the merged tokens; those of the weights, which begin at
    /// index `at`, are added to `sum`.
    fn backward(
        &self,
        x: Tensor<2>,
        dy: Tensor<2>,
        cfg: &VisionConfig,
        at: usize,
        sum: &mut Gradients,
    ) -> Result<Tensor<2>> {
        let ([patches, hidden], area) = (x.dims(), cfg.merge_area());
        let [first, second] = &self.mlp;
        let (_, [norm, first_weight, first_bias, second_weight, second_bias]) =
            sum.at::<0, 5>(0, at);
        let linear = |weight, bias| LinearSums { pair: None, weight, bias };
        let merged = self.ln_q.forward(x.clone())?.reshape([patches / area, hidden * area]);
        let before = first.forward(merged.clone())?;
        let dafter =
            second.backward(gelu(before.clone()), dy, linear(second_weight, second_bias))?;
        let dbefore = gelu_backward(before, dafter)?;
        let dmerged = first.backward(merged, dbefore, linear(first_weight, first_bias))?;
        self.ln_q.backward(x, dmerged.reshape([patches, hidden]), None, norm)
    }
}
