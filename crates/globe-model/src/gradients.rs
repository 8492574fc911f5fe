//! Gradients added up over the answers of a step: of adapters, or of the weights themselves.

use globe_ops::{
    Device, Tensor, column_sums, linear_backward_weight, rms_norm_backward_weight,
    scatter_add_rows, zeros,
};

use crate::Result;
use crate::lora::{Lora, LoraGradient, widened};

/// The gradient of one tensor of the model, in the parts that the device holds it in; that of a
/// vector is one part of one row.
pub(crate) struct WeightGradient(Vec<Tensor<2>>);

impl WeightGradient {
    /// Zeros.
    pub(crate) fn new(shapes: impl IntoIterator<Item = [usize; 2]>, device: &Device) -> Self {
        Self(shapes.into_iter().map(|shape| zeros(shape, device)).collect())
    }

    /// Adds `dy^T x`, the gradient of a matrix. `dy: [rows, outputs]`, `x: [rows, cols]`.
    pub(crate) fn add_product(&mut self, dy: &Tensor<2>, x: &Tensor<2>) -> Result<()> {
        let ([rows, _], mut first) = (dy.dims(), 0);
        // Taken out, here and below, so that no second handle makes the CPU path copy it.
        let parts = std::mem::take(&mut self.0);
        let is_whole = parts.len() == 1;
        for part in parts {
            let [outputs, width] = part.dims();
            let dy = match is_whole {
                true => dy.clone(),
                false => dy.clone().slice([0..rows, first..first + outputs]),
            };
            first += outputs;
            self.0.push(linear_backward_weight(dy, widened(x.clone(), width), 1.0, part)?);
        }
        Ok(())
    }

    /// Adds the sum over all rows of `dy`, the gradient of a bias.
    pub(crate) fn add_columns(&mut self, dy: &Tensor<2>) -> Result<()> {
        self.change_vector(|sum| Ok(column_sums(dy.clone(), sum)?))
    }

    /// Adds the gradient of the weight of a norm of `x`.
    pub(crate) fn add_norm(&mut self, x: &Tensor<2>, dy: &Tensor<2>, eps: f32) -> Result<()> {
        self.change_vector(|sum| Ok(rms_norm_backward_weight(x.clone(), dy.clone(), eps, sum)?))
    }

    fn change_vector(&mut self, change: impl Fn(Tensor<1>) -> Result<Tensor<1>>) -> Result<()> {
        for part in std::mem::take(&mut self.0) {
            let [_, n] = part.dims();
            self.0.push(change(part.reshape([n]))?.reshape([1, n]));
        }
        Ok(())
    }

    /// Adds row `source` of `dx` to row `slot` for every `[source, slot]`: the gradient of a lookup.
    pub(crate) fn add_rows(&mut self, dx: &Tensor<2>, pairs: &[[usize; 2]]) -> Result<()> {
        let mut first = 0;
        for part in std::mem::take(&mut self.0) {
            let [rows, width] = part.dims();
            let here = pairs.iter().filter(|[_, slot]| (first..first + rows).contains(slot));
            let here: Vec<_> = here.map(|[source, slot]| [*source, slot - first]).collect();
            first += rows;
            self.0.push(scatter_add_rows(part, widened(dx.clone(), width), &here)?);
        }
        Ok(())
    }
}

/// Where the gradients of a product are added up; what is `None` is not trained.
#[derive(Default)]
pub(crate) struct LinearSums<'a> {
    pub(crate) pair: Option<&'a mut LoraGradient>,
    pub(crate) weight: Option<&'a mut WeightGradient>,
    pub(crate) bias: Option<&'a mut WeightGradient>,
}

/// Where the gradients of a block are added up.
#[derive(Default)]
pub(crate) struct BlockSums<'a> {
    pub(crate) first_norm: Option<&'a mut WeightGradient>,
    pub(crate) second_norm: Option<&'a mut WeightGradient>,
    pub(crate) qkv: LinearSums<'a>,
    pub(crate) out: LinearSums<'a>,
    pub(crate) gate_up: LinearSums<'a>,
    pub(crate) down: LinearSums<'a>,
}

/// Gradients of everything that training changes.
pub struct Gradients {
    /// Of the adapters, in the order of the matrices that can have one.
    pub(crate) pairs: Vec<Option<LoraGradient>>,
    /// Of the model's own tensors, in the order of [`crate::Qwen2_5Vl::packed_specs`].
    pub(crate) weights: Vec<Option<WeightGradient>>,
}

impl Gradients {
    /// Zeros for the adapters.
    pub(crate) fn of_pairs<'a>(pairs: impl Iterator<Item = Option<&'a Lora>>) -> Self {
        let pairs = pairs.map(|pair| pair.map(LoraGradient::new)).collect();
        Self { pairs, weights: Vec::new() }
    }

    /// The sum of a tensor, if it is trained.
    pub(crate) fn weight(&mut self, i: usize) -> Option<&mut WeightGradient> {
        self.weights.get_mut(i).and_then(Option::as_mut)
    }

    /// The sums of consecutive matrices and consecutive tensors, as far as they are trained.
    pub(crate) fn at<const P: usize, const W: usize>(
        &mut self,
        pair: usize,
        weight: usize,
    ) -> ([Option<&mut LoraGradient>; P], [Option<&mut WeightGradient>; W]) {
        (several(&mut self.pairs, pair), several(&mut self.weights, weight))
    }

    /// The sums in the order of [`crate::LoraParameters`] or [`crate::WeightParameters`].
    pub fn into_tensors(self) -> Vec<Tensor<2>> {
        let pairs = self.pairs.into_iter().flatten().flat_map(LoraGradient::into_tensors);
        pairs.chain(self.weights.into_iter().flatten().flat_map(|sum| sum.0)).collect()
    }
}

fn several<T, const N: usize>(all: &mut [Option<T>], first: usize) -> [Option<&mut T>; N] {
    let mut found = all.get_mut(first..first + N).unwrap_or_default().iter_mut();
    std::array::from_fn(|_| found.next().and_then(Option::as_mut))
}
