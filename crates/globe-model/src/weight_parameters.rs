//! The model's own tensors as what training changes, and under the names of the checkpoint.

use globe_format::packed::{Class, TensorSpec};
use globe_ops::{BLOCK, Device, Tensor, read_f32, tensor_f32};

use crate::gradients::WeightGradient;
use crate::weights::Matrix;
use crate::{Error, Result};

/// Sees name, shape and values of a tensor of the checkpoint.
pub type EachTensor<'a> = dyn FnMut(&str, &[usize], Vec<f32>) + 'a;

/// A tensor within the model.
pub(crate) enum TensorMut<'a> {
    Matrix(&'a mut Matrix),
    Vector(&'a mut Tensor<1>),
}

impl TensorMut<'_> {
    /// What the device holds of it, `[rows, width]` each; a vector is one row. They share the
    /// buffers of the model.
    fn parts(&self) -> Result<Vec<Tensor<2>>> {
        Ok(match self {
            Self::Matrix(Matrix::Packed(matrix)) => matrix.shared_parts()?,
            Self::Matrix(Matrix::Dense(matrix)) => vec![(**matrix).clone()],
            Self::Vector(vector) => vec![(*vector).clone().unsqueeze()],
        })
    }

    /// Puts tensors of the same shapes in their place.
    fn replace(&mut self, mut parts: Vec<Tensor<2>>) -> Result<()> {
        match self {
            Self::Matrix(Matrix::Packed(matrix)) => matrix.set_shared_parts(parts)?,
            Self::Matrix(Matrix::Dense(matrix)) => {
                parts.pop().into_iter().for_each(|part| **matrix = part);
            }
            Self::Vector(vector) => {
                parts.pop().into_iter().for_each(|part| **vector = part.flatten(0, 1));
            }
        }
        Ok(())
    }
}

/// One tensor of the model and the tensors of the checkpoint that it is made of.
pub(crate) struct WeightParameter<'a> {
    /// Index in the order of [`crate::Qwen2_5Vl::packed_specs`].
    pub(crate) index: usize,
    pub(crate) spec: TensorSpec,
    /// Shapes of its sources in the checkpoint.
    pub(crate) shapes: Vec<Vec<usize>>,
    pub(crate) tensor: TensorMut<'a>,
}

/// What training of the weights themselves changes: one tensor of the model after the other, each in
/// the parts that the device holds it in.
pub struct WeightParameters<'a> {
    pub(crate) parameters: Vec<WeightParameter<'a>>,
    /// A head that shares the embedding table, which is the parameter of that index.
    pub(crate) tied: Option<(usize, &'a mut Matrix)>,
    pub(crate) device: Device,
}

impl WeightParameters<'_> {
    /// Shapes on the device, those of a vector `[1, n]`.
    ///
    /// # Errors
    /// [`Error::Ops`] unless the model was loaded as [`crate::Precision::Trained`].
    pub fn shapes(&self) -> Result<Vec<[usize; 2]>> {
        let shapes = |p: &WeightParameter| Ok(p.tensor.parts()?.iter().map(Tensor::dims).collect());
        let shapes: Result<Vec<Vec<_>>> = self.parameters.iter().map(shapes).collect();
        Ok(shapes?.concat())
    }

    /// For each of them whether its weights decay: those of matrices do, biases and norms do not.
    ///
    /// # Errors
    /// As [`WeightParameters::shapes`].
    pub fn decays(&self) -> Result<Vec<bool>> {
        let mut decays = Vec::new();
        for parameter in &self.parameters {
            let n = parameter.tensor.parts()?.len();
            decays.extend(std::iter::repeat_n(parameter.spec.class != Class::Vector, n));
        }
        Ok(decays)
    }

    /// Zero gradients, by index.
    pub(crate) fn gradients(&self) -> Result<Vec<(usize, WeightGradient)>> {
        let gradient = |parameter: &WeightParameter| {
            let parts = parameter.tensor.parts()?;
            let shapes = parts.iter().map(Tensor::dims);
            Ok((parameter.index, WeightGradient::new(shapes, &self.device)))
        };
        self.parameters.iter().map(gradient).collect()
    }

    /// Replaces each tensor by what `update` makes of it; it gets the index as well.
    ///
    /// # Errors
    /// Those of `update`, and as [`WeightParameters::shapes`].
    pub fn update(
        &mut self,
        mut update: impl FnMut(usize, Tensor<2>) -> Result<Tensor<2>>,
    ) -> Result<()> {
        let mut at = 0;
        for parameter in &mut self.parameters {
            let mut updated = Vec::new();
            for part in parameter.tensor.parts()? {
                updated.push(update(at, part)?);
                at += 1;
            }
            parameter.tensor.replace(updated)?;
        }
        self.tie();
        Ok(())
    }

    fn tie(&mut self) {
        let Some((index, head)) = &mut self.tied else { return };
        let table = self.parameters.iter().find(|p| p.index == *index);
        if let Some(TensorMut::Matrix(table)) = table.map(|p| &p.tensor) {
            **head = (*table).clone();
        }
    }

    /// Shows every tensor of the checkpoint, one tensor of the model in host memory at a time. Values
    /// are what `of` makes of each tensor on the device, whose index it gets as well: itself, or one of
    /// the same shape that belongs to it.
    ///
    /// # Errors
    /// [`Error::Ops`] if the device failed, and those of `of`.
    pub async fn read(
        &self,
        mut of: impl FnMut(usize, Tensor<2>) -> Result<Tensor<2>>,
        each: &mut EachTensor<'_>,
    ) -> Result<()> {
        let mut at = 0;
        for WeightParameter { spec, shapes, tensor, .. } in &self.parameters {
            let (mut values, mut width) = (Vec::new(), 0);
            for part in tensor.parts()? {
                width = part.dims()[1];
                values.append(&mut read_f32(of(at, part)?).await?);
                at += 1;
            }
            // A vector lies in one row and has rows of one value.
            let width = if spec.class == Class::Vector { 1 } else { width };
            let sources = split(spec, width, &values);
            for ((source, shape), values) in spec.sources.iter().zip(shapes).zip(sources) {
                each(&source.name, shape, values);
            }
        }
        Ok(())
    }

    /// Tensors laid out like the model, from values by the names of the checkpoint; `take` is called
    /// with each tensor as soon as it is on the device.
    ///
    /// # Errors
    /// [`Error::Training`] naming a tensor that is absent or has another size, and those of `take`.
    pub fn lay_out<'v>(
        &self,
        found: impl Fn(&str) -> Option<&'v [f32]>,
        mut take: impl FnMut(Tensor<2>) -> Result<()>,
    ) -> Result<()> {
        for parameter in &self.parameters {
            for part in parameter.lay_out(&found, &self.device)? {
                take(part)?;
            }
        }
        Ok(())
    }

    /// Puts values by the names of the checkpoint into the model.
    ///
    /// # Errors
    /// [`Error::Training`] naming a tensor that is absent or has another size.
    pub fn load<'v>(&mut self, found: impl Fn(&str) -> Option<&'v [f32]>) -> Result<()> {
        for parameter in &mut self.parameters {
            let parts = parameter.lay_out(&found, &self.device)?;
            parameter.tensor.replace(parts)?;
        }
        self.tie();
        Ok(())
    }
}

impl WeightParameter<'_> {
    fn lay_out<'v>(
        &self,
        found: &impl Fn(&str) -> Option<&'v [f32]>,
        device: &Device,
    ) -> Result<Vec<Tensor<2>>> {
        let shapes: Vec<[usize; 2]> = self.tensor.parts()?.iter().map(Tensor::dims).collect();
        let sources = self.spec.sources.iter().map(|source| {
            let n = source.rows * source.cols;
            found(&source.name).filter(|values| values.len() == n).ok_or_else(|| {
                let reason = format!("`{}` of {n} values is missing", source.name);
                Error::Training { reason }
            })
        });
        let sources: Vec<&[f32]> = sources.collect::<Result<_>>()?;
        let width = if self.spec.class == Class::Vector { 1 } else { shapes[0][1] };
        let values = join(&self.spec, width, &sources);
        let (mut rest, mut parts) = (&values[..], Vec::with_capacity(shapes.len()));
        for shape in shapes {
            let (mine, others) = rest.split_at(shape[0] * shape[1]);
            parts.push(tensor_f32(mine.to_vec(), shape, device));
            rest = others;
        }
        Ok(parts)
    }
}

/// Values of the sources from those of the whole, rows of `width`.
fn split(spec: &TensorSpec, width: usize, values: &[f32]) -> Vec<Vec<f32>> {
    debug_assert!(width == spec.cols || width == spec.cols.next_multiple_of(BLOCK));
    let mut sources: Vec<Vec<f32>> =
        spec.sources.iter().map(|source| vec![0.0; source.rows * source.cols]).collect();
    for (row, values) in values.chunks_exact(width).enumerate() {
        let Some((source, at)) = spec.source_row(row) else { continue };
        let cols = spec.sources[source].cols;
        sources[source][at * cols..(at + 1) * cols].copy_from_slice(&values[..cols]);
    }
    sources
}

/// The inverse of [`split`], filled up with zeros.
fn join(spec: &TensorSpec, width: usize, sources: &[&[f32]]) -> Vec<f32> {
    let mut values = vec![0.0; spec.rows * width];
    for (row, values) in values.chunks_exact_mut(width).enumerate() {
        let Some((source, at)) = spec.source_row(row) else { continue };
        let cols = spec.sources[source].cols;
        values[..cols].copy_from_slice(&sources[source][at * cols..(at + 1) * cols]);
    }
    values
}

#[cfg(test)]
mod tests {
    use globe_format::packed::SourceRows;

    use super::*;

    #[test]
    fn a_fused_matrix_splits_and_joins() {
        let source =
            |name: &str| SourceRows { name: name.into(), rows: 3, cols: 2, padded_rows: 4 };
        let spec = TensorSpec::interleave("ab", Class::Text, vec![source("a"), source("b")]);
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [7.0, 8.0, 9.0, 10.0, 11.0, 12.0]);
        let whole = join(&spec, 32, &[&a, &b]);
        assert_eq!((whole.len(), whole[32], whole[64]), (8 * 32, 7.0, 3.0));
        assert_eq!(split(&spec, 32, &whole), [a, b]);
        assert_eq!(whole.iter().filter(|v| **v != 0.0).count(), 12);
    }
}
