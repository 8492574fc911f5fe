//! The model's own tensors as what training changes, and under the names of the checkpoint.

use std::borrow::Cow;

use globe_format::packed::{Class, TensorSpec};
use globe_ops::{BLOCK, Device, Tensor, flush, read_f32, tensor_f32};

use crate::gradients::WeightGradient;
use crate::weights::Matrix;
use crate::{Error, Result};

/// Sees name, shape and values of a tensor of the checkpoint; an error ends the reading.
pub type EachTensor<'a, E> = dyn FnMut(&str, &[usize], Vec<f32>) -> Result<(), E> + 'a;

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
    pub async fn read<E: From<Error>>(
        &self,
        mut of: impl FnMut(usize, Tensor<2>) -> Result<Tensor<2>>,
        each: &mut EachTensor<'_, E>,
    ) -> Result<(), E> {
        let mut at = 0;
        for WeightParameter { spec, shapes, tensor, .. } in &self.parameters {
            let (mut values, mut width) = (Vec::new(), 0);
            for part in tensor.parts()? {
                width = part.dims()[1];
                let mut read = read_f32(of(at, part)?).await.map_err(Error::from)?;
                match values.is_empty() {
                    true => values = read,
                    false => values.append(&mut read),
                }
                at += 1;
            }
            // A vector lies in one row and has rows of one value.
            let width = if spec.class == Class::Vector { 1 } else { width };
            let sources = split(spec, width, values);
            for ((source, shape), values) in spec.sources.iter().zip(shapes).zip(sources) {
                each(&source.name, shape, values)?;
            }
        }
        Ok(())
    }

    /// Name and shape of every tensor that [`WeightParameters::read`] gives, in its order.
    pub fn layout(&self) -> Vec<(String, Vec<usize>)> {
        let sources = self.parameters.iter().flat_map(|p| p.spec.sources.iter().zip(&p.shapes));
        sources.map(|(source, shape)| (source.name.clone(), shape.clone())).collect()
    }

    /// Tensors of the model that change, each of one or several parts.
    pub fn count(&self) -> usize {
        self.parameters.len()
    }

    /// Tensors laid out like the parts of tensor `i` of the model, from values by the names of the
    /// checkpoint. They are on the device when this returns.
    ///
    /// # Errors
    /// Those of `found`, [`Error::Training`] naming a tensor of another size, and [`Error::Ops`] if the
    /// device failed.
    pub fn lay_out<'v, E: From<Error>>(
        &self,
        i: usize,
        found: impl Fn(&str) -> Result<Cow<'v, [f32]>, E>,
    ) -> Result<Vec<Tensor<2>>, E> {
        match self.parameters.get(i) {
            Some(parameter) => parameter.lay_out(&found, &self.device),
            None => Ok(Vec::new()),
        }
    }

    /// Puts values by the names of the checkpoint into the model, one of its tensors after the other.
    ///
    /// # Errors
    /// As [`WeightParameters::lay_out`].
    pub fn load<'v, E: From<Error>>(
        &mut self,
        found: impl Fn(&str) -> Result<Cow<'v, [f32]>, E>,
    ) -> Result<(), E> {
        for parameter in &mut self.parameters {
            let parts = parameter.lay_out(&found, &self.device)?;
            parameter.tensor.replace(parts)?;
        }
        self.tie();
        Ok(())
    }
}

impl WeightParameter<'_> {
    fn lay_out<'v, E: From<Error>>(
        &self,
        found: &impl Fn(&str) -> Result<Cow<'v, [f32]>, E>,
        device: &Device,
    ) -> Result<Vec<Tensor<2>>, E> {
        let shapes: Vec<[usize; 2]> = self.tensor.parts()?.iter().map(Tensor::dims).collect();
        let mut sources = Vec::with_capacity(self.spec.sources.len());
        for source in &self.spec.sources {
            let (n, values) = (source.rows * source.cols, found(&source.name)?);
            if values.len() != n {
                let reason =
                    format!("`{}` has {} values instead of {n}", source.name, values.len());
                return Err(Error::Training { reason }.into());
            }
            sources.push(values);
        }
        let width = if self.spec.class == Class::Vector { 1 } else { shapes[0][1] };
        let values = join(&self.spec, width, sources);
        let parts = match shapes[..] {
            [whole] => vec![tensor_f32(values, whole, device)],
            _ => {
                let mut rest = &values[..];
                let part = |shape: [usize; 2]| {
                    let (mine, others) = rest.split_at(shape[0] * shape[1]);
                    rest = others;
                    tensor_f32(mine.to_vec(), shape, device)
                };
                shapes.into_iter().map(part).collect()
            }
        };
        flush(device).map_err(Error::from)?;
        Ok(parts)
    }
}

/// Values of the sources from those of the whole, rows of `width`. One source that is the whole is not
/// copied.
fn split(spec: &TensorSpec, width: usize, values: Vec<f32>) -> Vec<Vec<f32>> {
    debug_assert!(width == spec.cols || width == spec.cols.next_multiple_of(BLOCK));
    if is_whole(spec, width) {
        return vec![values];
    }
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
fn join(spec: &TensorSpec, width: usize, mut sources: Vec<Cow<'_, [f32]>>) -> Vec<f32> {
    if is_whole(spec, width) {
        return sources.pop().map(Cow::into_owned).unwrap_or_default();
    }
    let mut values = vec![0.0; spec.rows * width];
    for (row, values) in values.chunks_exact_mut(width).enumerate() {
        let Some((source, at)) = spec.source_row(row) else { continue };
        let cols = spec.sources[source].cols;
        values[..cols].copy_from_slice(&sources[source][at * cols..(at + 1) * cols]);
    }
    values
}

/// Whether the whole has one source, row by row the same.
fn is_whole(spec: &TensorSpec, width: usize) -> bool {
    let [source] = &spec.sources[..] else { return false };
    (source.cols, source.rows) == (width, spec.rows)
        && (0..spec.rows).all(|row| spec.source_row(row) == Some((0, row)))
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
        let whole = join(&spec, 32, vec![Cow::Borrowed(&a[..]), Cow::Borrowed(&b[..])]);
        assert_eq!((whole.len(), whole[32], whole[64]), (8 * 32, 7.0, 3.0));
        assert_eq!(split(&spec, 32, whole.clone()), [a, b]);
        assert_eq!(whole.iter().filter(|v| **v != 0.0).count(), 12);
    }
}
