//! Low-rank adapters (arXiv 2106.09685) beside the matrices of a model: `y += scale * B (A x)`.
//!
//! A fused matrix has one pair for all of its modules. Their rows of `A` lie one after the other,
//! and a row of `B` is zero outside the columns of its own module, so that both stay plain
//! products; both are filled up with zeros to whole blocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use globe_format::packed::TensorSpec;
use globe_ops::{
    BLOCK, Compute, Fused, PackedMatrix, Tensor, linear, linear_backward_weight, packed_linear,
    packed_linear_backward, read_f32, rms_norm, tensor_f32, zeros,
};

use crate::{Error, Result};

/// Scale and rank of an adapter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraShape {
    /// Rank of every pair.
    pub rank: usize,
    /// The factor of `B A x`.
    pub scale: f32,
}

/// The pair of one module, such as `model.layers.0.self_attn.q_proj`.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraMatrices {
    /// `[rank, n_in]`, row-major.
    pub a: Vec<f32>,
    /// `[n_out, rank]`, row-major.
    pub b: Vec<f32>,
    /// Width of the module's input.
    pub n_in: usize,
    /// Width of the module's output.
    pub n_out: usize,
}

/// Pairs by module.
pub type LoraModules = BTreeMap<String, LoraMatrices>;

/// The pair of one fused matrix.
#[derive(Clone)]
pub(crate) struct Lora {
    layout: Arc<Layout>,
    compute: Compute,
    a: Tensor<2>, // [width, cols]
    b: Tensor<2>, // [rows, width]
    /// `scale * B`: a step then launches nothing but kernels of ours, and so can be replayed without CubeCL.
    b_scaled: Tensor<2>,
    /// Off, the matrix is as it was without the pair.
    pub(crate) on: bool,
}

/// Where the modules of a fused matrix lie.
struct Layout {
    shape: LoraShape,
    modules: Vec<(String, usize)>,       // with their outputs
    owners: Vec<Option<(usize, usize)>>, // of each row of B: module and its output
    n_in: usize,
    cols: usize,
    width: usize,
}

impl Layout {
    fn new(spec: &TensorSpec, shape: LoraShape, found: &LoraModules) -> Self {
        let name = |i: usize| module_name(&spec.sources[i].name);
        let place: Vec<usize> =
            (0..spec.sources.len()).filter(|i| found.contains_key(name(*i))).collect();
        let modules: Vec<_> =
            place.iter().map(|i| (name(*i).to_owned(), spec.sources[*i].rows)).collect();
        let owners = (0..spec.rows).map(|row| {
            let (source, row) = spec.source_row(row)?;
            Some((place.iter().position(|i| *i == source)?, row))
        });
        Self {
            shape,
            owners: owners.collect(),
            n_in: spec.sources[0].cols,
            cols: spec.cols.next_multiple_of(BLOCK),
            width: (modules.len() * shape.rank).next_multiple_of(BLOCK),
            modules,
        }
    }

    /// `A` and `B` of all modules together.
    fn join(&self, found: &LoraModules) -> [Vec<f32>; 2] {
        let rank = self.shape.rank;
        let mut a = vec![0.0; self.width * self.cols];
        let mut b = vec![0.0; self.owners.len() * self.width];
        for (i, (module, _)) in self.modules.iter().enumerate() {
            for (r, row) in found[module].a.chunks_exact(self.n_in).enumerate() {
                let at = (i * rank + r) * self.cols;
                a[at..at + self.n_in].copy_from_slice(row);
            }
        }
        for (row, (module, output)) in self.rows() {
            let (from, to) = (output * rank, row * self.width + module * rank);
            b[to..to + rank].copy_from_slice(&found[&self.modules[module].0].b[from..from + rank]);
        }
        [a, b]
    }

    /// The inverse of [`Layout::join`].
    fn split(&self, a: &[f32], b: &[f32]) -> LoraModules {
        let (rank, n_in) = (self.shape.rank, self.n_in);
        let mut modules: Vec<LoraMatrices> = Vec::with_capacity(self.modules.len());
        for (i, (_, n_out)) in self.modules.iter().enumerate() {
            let rows = a.chunks_exact(self.cols).skip(i * rank).take(rank);
            let a = rows.flat_map(|row| &row[..n_in]).copied().collect();
            modules.push(LoraMatrices { a, b: vec![0.0; n_out * rank], n_in, n_out: *n_out });
        }
        for (row, (module, output)) in self.rows() {
            let (to, from) = (output * rank, row * self.width + module * rank);
            modules[module].b[to..to + rank].copy_from_slice(&b[from..from + rank]);
        }
        let names = self.modules.iter().map(|(name, _)| name.clone());
        names.zip(modules).collect()
    }

    /// Rows of `B` that belong to a module, with the module and its output.
    fn rows(&self) -> impl Iterator<Item = (usize, (usize, usize))> {
        self.owners.iter().enumerate().filter_map(|(row, owner)| Some((row, (*owner)?)))
    }

    /// 1 where `B` is trained and 0 where it stays zero, row-major.
    fn mask(&self) -> Vec<f32> {
        let mut mask = vec![0.0; self.owners.len() * self.width];
        for (row, (module, _)) in self.rows() {
            let at = row * self.width + module * self.shape.rank;
            mask[at..at + self.shape.rank].fill(1.0);
        }
        mask
    }
}

/// `model.layers.0.mlp.down_proj` of `model.layers.0.mlp.down_proj.weight`.
pub(crate) fn module_name(tensor: &str) -> &str {
    tensor.strip_suffix(".weight").unwrap_or(tensor)
}

impl Lora {
    /// The pair of a matrix, or `None` if none of its modules was found.
    ///
    /// # Errors
    /// [`Error::Adapter`] if a module has another size or rank.
    pub(crate) fn new(
        spec: &TensorSpec,
        shape: LoraShape,
        found: &LoraModules,
        compute: &Compute,
    ) -> Result<Option<Self>> {
        for source in &spec.sources {
            let module = module_name(&source.name);
            let Some(pair) = found.get(module) else { continue };
            let expected = [shape.rank * source.cols, source.rows * shape.rank];
            if [pair.a.len(), pair.b.len()] != expected {
                let (got, expected) = ([pair.n_out, pair.n_in], [source.rows, source.cols]);
                return Err(Error::Adapter { module: module.into(), expected, got });
            }
        }
        let layout = Layout::new(spec, shape, found);
        if layout.modules.is_empty() {
            return Ok(None);
        }
        let [a, b] = layout.join(found);
        let a = tensor_f32(a, [layout.width, layout.cols], &compute.device);
        let b = tensor_f32(b, [spec.rows, layout.width], &compute.device);
        let b_scaled = b.clone() * shape.scale;
        let (layout, compute) = (Arc::new(layout), compute.clone());
        Ok(Some(Self { layout, compute, a, b, b_scaled, on: true }))
    }

    fn set(&mut self, a: Tensor<2>, b: Tensor<2>) {
        self.b_scaled = b.clone() * self.layout.shape.scale;
        (self.a, self.b) = (a, b);
    }

    /// `y + scale * B A x`, or of `norm(x)`, where packed products take it along. `x: [rows, inputs]`,
    /// `y: [rows, outputs]`.
    pub(crate) fn forward_add(
        &self,
        x: Tensor<2>,
        norm: Option<(&Tensor<1>, f32)>,
        y: Tensor<2>,
    ) -> Result<Tensor<2>> {
        let hidden = self.hidden(x, norm)?;
        let fused = Fused { residual: Some(y), ..Fused::default() };
        self.product(hidden, &self.b_scaled, self.layout.width, fused)
    }

    /// `dx` of the frozen matrix with what the pair adds; gradients of the pair are added to `sum`.
    pub(crate) fn backward_add(
        &self,
        x: Tensor<2>,
        dy: Tensor<2>,
        dx: Tensor<2>,
        sum: &mut LoraGradient,
    ) -> Result<Tensor<2>> {
        let (scale, [_, inputs]) = (self.layout.shape.scale, x.dims());
        let x = widened(x, self.layout.cols); // once, for both products
        let hidden = self.hidden(x.clone(), None)?; // [rows, width]
        let dhidden = self.product_backward(dy.clone(), &self.b_scaled, self.layout.width, None)?;
        sum.add(1, dy, hidden, scale)?;
        sum.add(0, dhidden.clone(), x, 1.0)?;
        self.product_backward(dhidden, &self.a, inputs, Some(dx))
    }

    /// `A x` or `A norm(x)`, `[rows, width]`.
    fn hidden(&self, x: Tensor<2>, norm: Option<(&Tensor<1>, f32)>) -> Result<Tensor<2>> {
        let [_, inputs] = x.dims();
        self.product(x, &self.a, inputs, Fused { norm, ..Fused::default() })
    }

    /// `norm(x) weight^T + residual` by the first `cols` columns of `weight`.
    fn product(
        &self,
        x: Tensor<2>,
        weight: &Tensor<2>,
        cols: usize,
        fused: Fused,
    ) -> Result<Tensor<2>> {
        if self.compute.is_gpu() {
            let weight = PackedMatrix::sharing(weight, cols, &self.compute)?;
            return Ok(packed_linear(x, &weight, None, fused)?);
        }
        let x = match fused.norm {
            Some((norm, eps)) => rms_norm(x, norm, eps)?,
            None => x,
        };
        let [outputs, width] = weight.dims();
        let y = linear(widened(x, width), weight, &zeros([outputs], &self.compute.device))?;
        Ok(match fused.residual {
            Some(residual) => residual + y,
            None => y,
        })
    }

    /// `dy weight + residual`, the first `cols` columns.
    fn product_backward(
        &self,
        dy: Tensor<2>,
        weight: &Tensor<2>,
        cols: usize,
        residual: Option<Tensor<2>>,
    ) -> Result<Tensor<2>> {
        if self.compute.is_gpu() {
            let weight = PackedMatrix::sharing(weight, cols, &self.compute)?;
            return Ok(packed_linear_backward(dy, &weight, residual)?);
        }
        let [outputs, _] = weight.dims();
        let weight = weight.clone().slice([0..outputs, 0..cols]);
        dense_backward(dy, &weight, residual)
    }
}

/// `dy weight + residual` for a plain matrix.
pub(crate) fn dense_backward(
    dy: Tensor<2>,
    weight: &Tensor<2>,
    residual: Option<Tensor<2>>,
) -> Result<Tensor<2>> {
    let [_, cols] = weight.dims();
    let zeros = zeros([cols], &dy.device());
    let dx = linear(dy, &weight.clone().transpose(), &zeros)?;
    Ok(match residual {
        Some(residual) => residual + dx,
        None => dx,
    })
}

/// `x` with zeros up to `width` columns.
pub(crate) fn widened(x: Tensor<2>, width: usize) -> Tensor<2> {
    let [rows, cols] = x.dims();
    if cols >= width {
        return x;
    }
    let filler = zeros([rows, width - cols], &x.device());
    Tensor::cat(vec![x, filler], 1)
}

/// The pairs of a whole model, one for each of its matrices that can have one.
pub struct LoraSet(pub(crate) Vec<Option<Lora>>);

/// Gradients of one pair so far: those of `A` and `B`.
pub(crate) struct LoraGradient([Option<Tensor<2>>; 2]);

impl LoraGradient {
    /// Zeros.
    pub(crate) fn new(lora: &Lora) -> Self {
        let like = |t: &Tensor<2>| Some(zeros(t.dims(), &lora.compute.device));
        Self([like(&lora.a), like(&lora.b)])
    }

    /// The two sums.
    pub(crate) fn into_tensors(self) -> impl Iterator<Item = Tensor<2>> {
        self.0.into_iter().flatten()
    }

    /// Adds `factor * dy^T x` to one of the two.
    fn add(&mut self, which: usize, dy: Tensor<2>, x: Tensor<2>, factor: f32) -> Result<()> {
        // Taken out, so that no second handle makes the CPU path copy it.
        let sum = self.0[which].take().expect("put back below, unless a shape check failed before");
        self.0[which] = Some(linear_backward_weight(dy, x, factor, sum)?);
        Ok(())
    }
}

/// What training of adapters changes: `A` and `B` of one matrix after the other.
pub struct LoraParameters<'a>(pub(crate) Vec<&'a mut Lora>);

impl LoraParameters<'_> {
    /// Shapes on the device.
    pub fn shapes(&self) -> Vec<[usize; 2]> {
        self.0.iter().flat_map(|pair| [pair.a.dims(), pair.b.dims()]).collect()
    }

    /// For each tensor, 1 where it is trained and 0 where it stays zero; `None`: everywhere.
    pub fn masks(&self) -> Vec<Option<Tensor<2>>> {
        let mask = |pair: &&mut Lora| {
            let layout = &pair.layout;
            let shape = pair.b.dims();
            let mask = (layout.modules.len() > 1)
                .then(|| tensor_f32(layout.mask(), shape, &pair.compute.device));
            [None, mask]
        };
        self.0.iter().flat_map(mask).collect()
    }

    /// Replaces each tensor by what `update` makes of it; it gets the index as well.
    ///
    /// # Errors
    /// Those of `update`.
    pub fn update<E>(
        &mut self,
        mut update: impl FnMut(usize, Tensor<2>) -> std::result::Result<Tensor<2>, E>,
    ) -> std::result::Result<(), E> {
        for (i, pair) in self.0.iter_mut().enumerate() {
            let a = update(2 * i, pair.a.clone())?;
            let b = update(2 * i + 1, pair.b.clone())?;
            pair.set(a, b);
        }
        Ok(())
    }

    /// The pairs by module, or of `tensors` laid out like them.
    ///
    /// # Errors
    /// [`Error::Ops`] if the device failed.
    pub async fn read(&self, tensors: Option<&[Tensor<2>]>) -> Result<LoraModules> {
        let mut modules = LoraModules::new();
        for (i, pair) in self.0.iter().enumerate() {
            let [a, b] = match tensors {
                Some(tensors) => [tensors[2 * i].clone(), tensors[2 * i + 1].clone()],
                None => [pair.a.clone(), pair.b.clone()],
            };
            let (a, b) = (read_f32(a).await?, read_f32(b).await?);
            modules.extend(pair.layout.split(&a, &b));
        }
        Ok(modules)
    }

    /// Tensors laid out like the pairs, from values by module. `found` has every module.
    ///
    /// # Errors
    /// [`Error::Adapter`] naming a module that is absent or has another size.
    pub fn lay_out(&self, found: &LoraModules) -> Result<Vec<Tensor<2>>> {
        let mut tensors = Vec::with_capacity(2 * self.0.len());
        for pair in &self.0 {
            let Layout { shape, n_in, .. } = *pair.layout;
            for (module, n_out) in &pair.layout.modules {
                let expected = [*n_out, n_in];
                let got = found.get(module).map_or([0; 2], |m| [m.n_out, m.n_in]);
                let sizes = found.get(module).map(|m| [m.a.len(), m.b.len()]);
                if sizes != Some([shape.rank * n_in, n_out * shape.rank]) {
                    return Err(Error::Adapter { module: module.clone(), expected, got });
                }
            }
            let [a, b] = pair.layout.join(found);
            let device = &pair.compute.device;
            tensors.push(tensor_f32(a, pair.a.dims(), device));
            tensors.push(tensor_f32(b, pair.b.dims(), device));
        }
        Ok(tensors)
    }
}

#[cfg(test)]
mod tests {
    use globe_format::packed::{Class, SourceRows};

    use super::*;

    fn matrices(n_in: usize, n_out: usize, rank: usize, start: f32) -> LoraMatrices {
        let count = |n: usize, start: f32| (0..n).map(|i| start + i as f32).collect();
        LoraMatrices { a: count(rank * n_in, start), b: count(n_out * rank, -start), n_in, n_out }
    }

    #[test]
    fn modules_of_a_fused_matrix_join_and_split() {
        let source = |name: &str, rows| SourceRows {
            name: format!("{name}.weight"),
            rows,
            cols: 5,
            padded_rows: rows,
        };
        let sources = vec![source("q", 4), source("k", 2), source("v", 2)];
        let spec = TensorSpec::stack("qkv", Class::Text, sources);
        let shape = LoraShape { rank: 3, scale: 2.0 };
        let found = LoraModules::from([
            ("q".into(), matrices(5, 4, 3, 1.0)),
            ("v".into(), matrices(5, 2, 3, 100.0)),
        ]);
        let layout = Layout::new(&spec, shape, &found);
        assert_eq!((layout.cols, layout.width, layout.modules.len()), (32, 32, 2));
        let [a, b] = layout.join(&found);
        assert_eq!(a[3 * 32], 100.0, "v's rows of A follow q's");
        assert_eq!(b[6 * 32 + 3], -100.0, "v's columns of B follow q's, in its own rows");
        assert_eq!(layout.split(&a, &b), found);
        let mask = layout.mask();
        assert_eq!(mask.iter().sum::<f32>(), 6.0 * 3.0);
        assert!(b.iter().zip(&mask).all(|(b, m)| *b == 0.0 || *m == 1.0));
    }
}
