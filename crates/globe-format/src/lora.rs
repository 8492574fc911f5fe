//! A PEFT LoRA adapter merged into the tensors it was trained for: `W + scale * B A`.
//!
//! Low-rank adaptation: arXiv 2106.09685; the scale `alpha / sqrt(r)`: arXiv 2312.03732. Rows are
//! merged as they are read, so neither the base nor the sum is ever in memory as a whole. Sums are made
//! in f64 and rounded once.

mod config;

use std::{collections::BTreeMap, ops::Range};

use self::config::AdapterConfig;
use crate::{
    checkpoint::Checkpoint,
    error::{Error, Result},
    names,
    source::{Files, Source, read_file},
    tensors::SourceTensors,
};

/// Configuration of an adapter.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";

/// Weights of an adapter.
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";

/// What PEFT puts before the names of the base model.
const PREFIX: &str = "base_model.model.";

/// The factors of one weight matrix.
#[derive(Debug)]
struct Factors {
    /// Name of `A: [rank, inputs]` in the adapter.
    a: String,
    /// Name of `B: [outputs, rank]` in the adapter.
    b: String,
    rank: usize,
    inputs: usize,
    outputs: usize,
    scale: f64,
}

/// An opened adapter.
#[derive(Debug)]
pub struct Adapter<S> {
    weights: Checkpoint<S>,
    base_name: Option<String>,
    /// By the name of the base tensor.
    factors: BTreeMap<String, Factors>,
}

impl<S: Source> Adapter<S> {
    /// Reads configuration and headers. `rename` gives the name of a base tensor that the model
    /// uses for the one PEFT knows, `None` keeps it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::AdapterConfig`] naming a field that cannot be merged,
    /// [`Error::Adapter`] listing tensors that are no pairs of factors.
    pub async fn open<F: Files<Source = S>>(
        files: &F,
        rename: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let json = read_file(files, ADAPTER_CONFIG_FILE).await?;
        let json = json.ok_or_else(|| Error::NotFound { file: ADAPTER_CONFIG_FILE.into() })?;
        let config = AdapterConfig::parse(&json)?;
        let weights = Checkpoint::open_file(files, ADAPTER_FILE).await?;
        let factors = pair(&weights, &config, rename)?;
        Ok(Self { weights, base_name: config.base_name, factors })
    }

    /// Name or path of the model that it says it was trained for.
    pub fn base_name(&self) -> Option<&str> {
        self.base_name.as_deref()
    }

    /// Number of matrices that it changes.
    pub fn n_matrices(&self) -> usize {
        self.factors.len()
    }

    /// Whether it changes the base tensor `name`.
    pub fn changes(&self, name: &str) -> bool {
        self.factors.contains_key(name)
    }
}

/// Finds both factors of every matrix.
fn pair<S: Source>(
    weights: &Checkpoint<S>,
    config: &AdapterConfig,
    rename: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, Factors>> {
    let (mut factors, mut problems) = (BTreeMap::new(), Vec::new());
    for name in weights.names() {
        let Some((module, other)) = split(name) else {
            problems.push(format!("`{name}` is no factor of a matrix; only those can be merged"));
            continue;
        };
        let Some(other) = weights.info(&other) else {
            problems.push(format!("`{name}` has no `{other}`"));
            continue;
        };
        let Some(a) = weights.info(name).filter(|_| name.ends_with(A)) else { continue };
        let ([rank, inputs], [outputs, b_rank]) = (a.shape.as_slice(), other.shape.as_slice())
        else {
            problems.push(format!("`{name}` {:?} and {:?} are no matrices", a.shape, other.shape));
            continue;
        };
        if rank != b_rank || *rank == 0 {
            problems.push(format!("`{name}` has rank {rank}, its partner {b_rank}"));
            continue;
        }
        let (a, b) = (name.to_owned(), other.name.clone());
        let scale = config.scale(module, *rank);
        let base = format!("{module}.weight");
        let base = rename(&base).unwrap_or(base);
        let (rank, inputs, outputs) = (*rank, *inputs, *outputs);
        factors.insert(base, Factors { a, b, rank, inputs, outputs, scale });
    }
    if factors.is_empty() && problems.is_empty() {
        problems.push("it holds no tensors".into());
    }
    if problems.is_empty() {
        return Ok(factors);
    }
    Err(Error::Adapter { file: ADAPTER_FILE.into(), problems })
}

const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";

/// Module of a factor, and the name of the other factor.
fn split(name: &str) -> Option<(&str, String)> {
    let module = name.strip_prefix(PREFIX)?;
    match (module.strip_suffix(A), module.strip_suffix(B)) {
        (Some(module), _) => Some((module, format!("{PREFIX}{module}{B}"))),
        (_, Some(module)) => Some((module, format!("{PREFIX}{module}{A}"))),
        _ => None,
    }
}

/// Base tensors with an adapter merged into them.
#[derive(Debug)]
pub struct Merged<T, S> {
    base: T,
    adapter: Adapter<S>,
}

impl<T: SourceTensors, S: Source> Merged<T, S> {
    /// Checks that every matrix of the adapter is in the base, with its size.
    ///
    /// # Errors
    /// [`Error::AdapterBase`] listing all that do not fit: the adapter is for another model.
    pub fn new(base: T, adapter: Adapter<S>) -> Result<Self> {
        let names = base.tensor_names();
        let mut problems = Vec::new();
        for (name, factors) in &adapter.factors {
            let expected = [factors.outputs, factors.inputs];
            match base.shape(name) {
                Some(shape) if shape == expected => {}
                Some(shape) => {
                    problems.push(format!("`{name}`: adapter {expected:?}, base {shape:?}"));
                }
                None => {
                    let nearest = names::nearest(name, names.iter().map(String::as_str));
                    let nearest = nearest.map(|near| format!("; nearest is `{near}`"));
                    let nearest = nearest.unwrap_or_default();
                    problems.push(format!("`{name}` is not in the base{nearest}"));
                }
            }
        }
        if problems.is_empty() {
            return Ok(Self { base, adapter });
        }
        Err(Error::AdapterBase { of: adapter.factors.len(), problems })
    }
}

impl<T: SourceTensors, S: Source> Merged<T, S> {
    /// The tensors before.
    pub fn base(&self) -> &T {
        &self.base
    }

    /// What is merged into them.
    pub fn adapter(&self) -> &Adapter<S> {
        &self.adapter
    }

    /// Some elements of a tensor in row-major order, before they are rounded.
    ///
    /// # Errors
    /// Those of [`SourceTensors::read_range`].
    pub async fn read_f64_range(&self, name: &str, elements: Range<usize>) -> Result<Vec<f64>> {
        let values = self.base.read_range(name, elements.clone()).await?;
        let mut values: Vec<f64> = values.into_iter().map(f64::from).collect();
        if let Some(factors) = self.adapter.factors.get(name).filter(|_| !values.is_empty()) {
            self.add_update(factors, elements, &mut values).await?;
        }
        Ok(values)
    }

    /// Adds `scale * B A` to `values`, which are those of `elements`.
    async fn add_update(
        &self,
        factors: &Factors,
        elements: Range<usize>,
        values: &mut [f64],
    ) -> Result<()> {
        let Factors { rank, inputs, scale, .. } = *factors;
        let rows = elements.start / inputs..elements.end.div_ceil(inputs);
        let weights = &self.adapter.weights;
        let a = weights.read_f32(&factors.a).await?;
        let b = weights.read_f32_range(&factors.b, rows.start * rank..rows.end * rank).await?;
        // The range may begin and end within a row.
        let lead = elements.start - rows.start * inputs;
        let mut at = 0;
        for (i, b) in b.chunks_exact(rank).enumerate() {
            let start = if i == 0 { lead } else { 0 };
            let end = inputs.min(start + values.len() - at);
            add_product(&mut values[at..at + end - start], (&a, b), (start, inputs), scale);
            at += end - start;
        }
        Ok(())
    }
}

impl<T: SourceTensors, S: Source> SourceTensors for Merged<T, S> {
    fn tensor_names(&self) -> Vec<String> {
        self.base.tensor_names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.base.shape(name)
    }

    async fn read_range(&self, name: &str, elements: Range<usize>) -> Result<Vec<f32>> {
        if !self.adapter.changes(name) {
            return self.base.read_range(name, elements).await;
        }
        let values = self.read_f64_range(name, elements).await?;
        Ok(values.into_iter().map(|value| value as f32).collect())
    }
}

/// Adds `scale * b A` to part of a row, from column `start` on. `a: [rank, inputs]`, `b: [rank]`.
fn add_product(
    row: &mut [f64],
    (a, b): (&[f32], &[f32]),
    (start, inputs): (usize, usize),
    scale: f64,
) {
    let mut sum = vec![0.0; row.len()];
    for (a, &b) in a.chunks_exact(inputs).zip(b) {
        for (sum, &a) in sum.iter_mut().zip(&a[start..start + row.len()]) {
            *sum += f64::from(a) * f64::from(b);
        }
    }
    for (value, sum) in row.iter_mut().zip(&sum) {
        *value += scale * sum;
    }
}
