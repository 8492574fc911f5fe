//! What a model wants packed: which rows of which tensors, in which order.

use std::collections::BTreeSet;

use crate::quant::WeightFormat;

/// One packed tensor and the checkpoint tensors that it is made of.
///
/// A vector has `cols` 1 and its elements are rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the manifest.
    pub name: String,
    /// Rows of all sources, the padded ones included.
    pub rows: usize,
    /// Columns; a source with fewer is filled up with zeros.
    pub cols: usize,
    /// Decides the format.
    pub class: Class,
    /// Checkpoint tensors, in the order of the rows.
    pub sources: Vec<SourceRows>,
    /// How the rows of several sources are arranged.
    pub order: RowOrder,
}

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A norm or a bias: always f32.
    Vector,
    /// A matrix of the language model.
    Text,
    /// A matrix of the vision tower.
    Vision,
    /// The embedding table or the head.
    Embedding,
}

/// Rows taken from one checkpoint tensor: all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRows {
    /// Name in the checkpoint.
    pub name: String,
    /// Rows there.
    pub rows: usize,
    /// Columns there: the product of all dimensions but the first, 1 for a vector.
    pub cols: usize,
    /// Rows after zeros are added.
    pub padded_rows: usize,
}

/// Arrangement of the rows of several sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowOrder {
    /// One source after the other.
    Stack,
    /// Row `r` of source `j` lands at `r * n_sources + j`. All sources have equal `padded_rows`.
    Interleave,
}

impl TensorSpec {
    /// A vector of `n` elements, as it is in the checkpoint.
    pub fn vector(name: impl Into<String>, n: usize) -> Self {
        Self::matrix(name, Class::Vector, n, 1)
    }

    /// A matrix of the checkpoint as it is.
    pub fn matrix(name: impl Into<String>, class: Class, rows: usize, cols: usize) -> Self {
        let name = name.into();
        let source = SourceRows { name: name.clone(), rows, cols, padded_rows: rows };
        Self { name, rows, cols, class, sources: vec![source], order: RowOrder::Stack }
    }

    /// Sources of equal width one after the other.
    pub fn stack(name: impl Into<String>, class: Class, sources: Vec<SourceRows>) -> Self {
        Self::of(name.into(), class, sources, RowOrder::Stack)
    }

    /// Sources of equal size row by row in turn.
    pub fn interleave(name: impl Into<String>, class: Class, sources: Vec<SourceRows>) -> Self {
        Self::of(name.into(), class, sources, RowOrder::Interleave)
    }

    fn of(name: String, class: Class, sources: Vec<SourceRows>, order: RowOrder) -> Self {
        let rows = sources.iter().map(|source| source.padded_rows).sum();
        let cols = sources.iter().map(|source| source.cols).max().unwrap_or(0);
        Self { name, rows, cols, class, sources, order }
    }

    /// The same with rows filled up with zeros to `cols`.
    pub fn padded_to(mut self, cols: usize) -> Self {
        self.cols = self.cols.max(cols);
        self
    }

    /// Where the row comes from: the source and the row in it, or `None` for a row of zeros.
    /// `row < self.rows`.
    pub fn source_row(&self, row: usize) -> Option<(usize, usize)> {
        let (idx, row) = match self.order {
            RowOrder::Interleave => (row % self.sources.len(), row / self.sources.len()),
            RowOrder::Stack => {
                let mut row = row;
                let idx = self.sources.iter().position(|source| {
                    let inside = row < source.padded_rows;
                    row -= if inside { 0 } else { source.padded_rows };
                    inside
                });
                (idx?, row)
            }
        };
        (row < self.sources[idx].rows).then_some((idx, row))
    }

    /// Rows that are read together and must stay in one part: one of each source where they alternate.
    pub fn turn(&self) -> usize {
        match self.order {
            RowOrder::Stack => 1,
            RowOrder::Interleave => self.sources.len(),
        }
    }

    /// Shape in the manifest: `[rows]` of a vector, `[rows, cols]` of a matrix.
    pub fn shape(&self) -> Vec<usize> {
        match self.class {
            Class::Vector => vec![self.rows],
            _ => vec![self.rows, self.cols],
        }
    }

    /// The format of this tensor when the language model has `text` and the tower `vision`.
    pub fn format(&self, text: WeightFormat, vision: WeightFormat) -> WeightFormat {
        match self.class {
            Class::Vector => WeightFormat::F32,
            Class::Vision => vision,
            Class::Text | Class::Embedding => text,
        }
    }
}

/// Why specs cannot be packed: a mistake in a model, found before anything is written.
pub(crate) fn check_specs(specs: &[TensorSpec]) -> Result<(), (String, String)> {
    let mut names = BTreeSet::new();
    for spec in specs {
        let fail = |reason: String| Err((spec.name.clone(), reason));
        if !names.insert(spec.name.as_str()) {
            return fail("stands twice".into());
        }
        if spec.rows == 0 || spec.cols == 0 || spec.sources.is_empty() {
            return fail("is empty".into());
        }
        if spec.class == Class::Vector && spec.cols != 1 {
            return fail(format!("is a vector of {} columns", spec.cols));
        }
        let sum: usize = spec.sources.iter().map(|source| source.padded_rows).sum();
        if sum != spec.rows {
            return fail(format!("has {} rows, its sources {sum}", spec.rows));
        }
        let first = spec.sources[0].padded_rows;
        for source in &spec.sources {
            if source.rows > source.padded_rows || source.cols > spec.cols {
                return fail(format!("has no room for `{}`", source.name));
            }
            if spec.order == RowOrder::Interleave && source.padded_rows != first {
                return fail("interleaves sources of different height".into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, rows: usize, padded_rows: usize) -> SourceRows {
        SourceRows { name: name.into(), rows, cols: 4, padded_rows }
    }

    fn map(spec: &TensorSpec) -> Vec<Option<(usize, usize)>> {
        (0..spec.rows).map(|row| spec.source_row(row)).collect()
    }

    #[test]
    fn rows_stack_or_alternate() {
        let stack = TensorSpec::stack("s", Class::Text, vec![source("a", 2, 2), source("b", 1, 2)]);
        assert_eq!(map(&stack), [Some((0, 0)), Some((0, 1)), Some((1, 0)), None]);
        let sources = vec![source("a", 2, 3), source("b", 1, 3)];
        let turns = TensorSpec::interleave("t", Class::Vision, sources);
        let expected = [Some((0, 0)), Some((1, 0)), Some((0, 1)), None, None, None];
        assert_eq!(map(&turns), expected);
        assert_eq!((turns.shape(), turns.padded_to(32).cols), (vec![6, 4], 32));
        assert_eq!(TensorSpec::vector("v", 5).shape(), [5]);
    }

    #[test]
    fn classes_choose_formats() {
        use WeightFormat::{F32, Q4, Q8};
        for (class, format) in
            [(Class::Vector, F32), (Class::Text, Q4), (Class::Embedding, Q4), (Class::Vision, Q8)]
        {
            assert_eq!(TensorSpec::matrix("m", class, 1, 1).format(Q4, Q8), format);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let good = TensorSpec::matrix("m", Class::Text, 2, 4);
        check_specs(&[good.clone(), TensorSpec::vector("v", 3)]).unwrap();
        let error = |spec: TensorSpec| check_specs(&[spec]).unwrap_err().1;
        assert_eq!(check_specs(&[good.clone(), good.clone()]).unwrap_err().1, "stands twice");
        assert_eq!(error(TensorSpec { rows: 3, ..good.clone() }), "has 3 rows, its sources 2");
        assert_eq!(error(TensorSpec { cols: 3, ..good.clone() }), "has no room for `m`");
        assert_eq!(error(TensorSpec { class: Class::Vector, ..good }), "is a vector of 4 columns");
        assert_eq!(error(TensorSpec::vector("v", 0)), "is empty");
        let uneven = vec![source("a", 2, 2), source("b", 2, 3)];
        let error = error(TensorSpec::interleave("t", Class::Text, uneven));
        assert_eq!(error, "interleaves sources of different height");
    }
}
