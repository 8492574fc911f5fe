//! A base some of whose tensors have other values, such as those that training of all weights left.

use std::ops::Range;

use crate::{
    checkpoint::Checkpoint,
    error::{Error, Result},
    names,
    source::Source,
};

/// Base tensors of which some have been trained.
#[derive(Debug)]
pub struct Replaced<B, W> {
    base: Checkpoint<B>,
    weights: Checkpoint<W>,
    /// Tensors of the base that are another name of a trained one.
    aliases: Vec<(String, String)>,
}

impl<B: Source, W: Source> Replaced<B, W> {
    /// Checks that every tensor of `weights` is in the base, with its shape. `aliases` are pairs of a
    /// tensor that the base may have and the one that it is another name of, such as a tied head.
    ///
    /// # Errors
    /// [`Error::ReplacedBase`] listing all that do not fit: they are of another model.
    pub fn new(
        base: Checkpoint<B>,
        weights: Checkpoint<W>,
        aliases: Vec<(String, String)>,
    ) -> Result<Self> {
        let mut problems = Vec::new();
        for name in weights.names() {
            let shape = weights.info(name).map(|info| &info.shape);
            match base.info(name).map(|info| &info.shape) {
                expected if expected == shape => {}
                Some(expected) => problems
                    .push(format!("`{name}`: {:?}, base {expected:?}", shape.unwrap_or(&vec![]))),
                None => {
                    let nearest = names::nearest(name, base.names());
                    let nearest = nearest.map(|near| format!("; nearest is `{near}`"));
                    let nearest = nearest.unwrap_or_default();
                    problems.push(format!("`{name}` is not in the base{nearest}"));
                }
            }
        }
        if problems.is_empty() {
            return Ok(Self { base, weights, aliases });
        }
        Err(Error::ReplacedBase { of: weights.names().count(), problems })
    }

    /// The tensors before.
    pub fn base(&self) -> &Checkpoint<B> {
        &self.base
    }

    /// Whether a tensor of the base has other values.
    pub fn changes(&self, name: &str) -> bool {
        self.weights.info(self.trained(name)).is_some()
    }

    /// Some elements of a tensor in row-major order, before they are rounded.
    ///
    /// # Errors
    /// Those of [`Checkpoint::read_f32_range`].
    pub async fn read_f64_range(&self, name: &str, elements: Range<usize>) -> Result<Vec<f64>> {
        let values = match self.changes(name) {
            true => self.weights.read_f32_range(self.trained(name), elements).await?,
            false => self.base.read_f32_range(name, elements).await?,
        };
        Ok(values.into_iter().map(f64::from).collect())
    }

    /// The name of a tensor among those trained.
    fn trained<'a>(&'a self, name: &'a str) -> &'a str {
        let alias = self.aliases.iter().find(|(alias, _)| alias == name);
        alias.map_or(name, |(_, trained)| trained)
    }
}
