//! Rows of a packed tensor, gathered from the tensors it is made of.

use std::{collections::BTreeMap, ops::Range};

use crate::{
    error::{Error, Result},
    names::{self, MissingTensor, NameReport, ShapeMismatch},
    packed::{RowOrder, SourceRows, TensorSpec},
    tensors::SourceTensors,
};

/// Checks that every source is there with its size; what no spec uses may be present as well.
pub(super) fn check_sources<T: SourceTensors>(specs: &[TensorSpec], tensors: &T) -> Result<()> {
    let present: BTreeMap<String, Vec<usize>> = tensors
        .tensor_names()
        .into_iter()
        .filter_map(|name| tensors.shape(&name).map(|shape| (name, shape)))
        .collect();
    let mut report = NameReport::default();
    for SourceRows { name, rows, cols, .. } in specs.iter().flat_map(|spec| &spec.sources) {
        let expected = if *cols == 1 { vec![*rows] } else { vec![*rows, *cols] };
        match present.get(name) {
            None => {
                let nearest = names::nearest(name, present.keys().map(String::as_str));
                report.missing.push(MissingTensor { name: name.clone(), shape: expected, nearest });
            }
            Some(shape) if !matches_size(shape, *rows, *cols) => {
                let (name, got) = (name.clone(), shape.clone());
                report.mismatched.push(ShapeMismatch { name, expected, got });
            }
            Some(_) => {}
        }
    }
    if report.is_empty() { Ok(()) } else { Err(Error::Names(Box::new(report))) }
}

fn matches_size(shape: &[usize], rows: usize, cols: usize) -> bool {
    let [first, rest @ ..] = shape else { return false };
    *first == rows && rest.iter().map(|&dim| dim as u64).product::<u64>() == cols as u64
}

/// Rows `rows` of the packed tensor: `[rows, spec.cols]`, padding zero.
pub(super) async fn gather<T: SourceTensors>(
    spec: &TensorSpec,
    tensors: &T,
    rows: Range<usize>,
) -> Result<Vec<f32>> {
    if let Some((source, elements)) = as_stored(spec, &rows) {
        return tensors.read_range(&source.name, elements).await;
    }
    let mut out = vec![0.0; rows.len() * spec.cols];
    let mut first = 0; // row of the packed tensor where the source starts
    for (j, source) in spec.sources.iter().enumerate() {
        let step = match spec.order {
            RowOrder::Stack => 1,
            RowOrder::Interleave => spec.sources.len(),
        };
        let start = if step == 1 { first } else { j };
        first += source.padded_rows;
        // Row `r` of the source lands at `start + r * step`.
        let reached = |row: usize| row.saturating_sub(start).div_ceil(step).min(source.rows);
        let (low, high) = (reached(rows.start), reached(rows.end));
        if low >= high {
            continue;
        }
        let elements = low * source.cols..high * source.cols;
        let values = tensors.read_range(&source.name, elements).await?;
        for (r, values) in (low..high).zip(values.chunks_exact(source.cols)) {
            let at = (start + r * step - rows.start) * spec.cols;
            out[at..at + source.cols].copy_from_slice(values);
        }
    }
    Ok(out)
}

/// The elements themselves, where rows are neither padded nor rearranged.
fn as_stored<'a>(
    spec: &'a TensorSpec,
    rows: &Range<usize>,
) -> Option<(&'a SourceRows, Range<usize>)> {
    let [source] = spec.sources.as_slice() else { return None };
    let as_is = source.cols == spec.cols && rows.end <= source.rows;
    as_is.then(|| (source, rows.start * spec.cols..rows.end * spec.cols))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::Class;

    /// Element `e` of source `i` is `100 i + e + 1`.
    struct Numbers(Vec<(&'static str, Vec<usize>)>);

    impl SourceTensors for Numbers {
        fn tensor_names(&self) -> Vec<String> {
            self.0.iter().map(|(name, _)| (*name).into()).collect()
        }

        fn shape(&self, name: &str) -> Option<Vec<usize>> {
            self.0.iter().find(|(n, _)| *n == name).map(|(_, shape)| shape.clone())
        }

        async fn read_range(&self, name: &str, elements: Range<usize>) -> Result<Vec<f32>> {
            let i = self.0.iter().position(|(n, _)| *n == name).expect("a known name");
            Ok(elements.map(|e| (100 * i + e + 1) as f32).collect())
        }
    }

    fn source(name: &str, rows: usize, cols: usize, padded_rows: usize) -> SourceRows {
        SourceRows { name: name.into(), rows, cols, padded_rows }
    }

    #[test]
    fn every_range_of_rows_follows_the_spec() {
        let tensors = Numbers(vec![("a", vec![3, 2]), ("b", vec![2, 2]), ("c", vec![3])]);
        let (a, b) = (source("a", 3, 2, 4), source("b", 2, 2, 4));
        let specs = [
            TensorSpec::stack("s", Class::Text, vec![a.clone(), b.clone()]).padded_to(3),
            TensorSpec::interleave("i", Class::Text, vec![a, b]),
            TensorSpec::matrix("a", Class::Text, 3, 2),
            TensorSpec::vector("c", 3),
            TensorSpec::matrix("a", Class::Text, 3, 2).padded_to(32),
        ];
        for spec in &specs {
            let row = |row: usize| {
                let mut values = vec![0.0; spec.cols];
                if let Some((i, r)) = spec.source_row(row) {
                    let SourceRows { name, cols, .. } = &spec.sources[i];
                    let read = tensors.read_range(name, r * cols..(r + 1) * cols);
                    values[..*cols].copy_from_slice(&pollster::block_on(read).unwrap());
                }
                values
            };
            for start in 0..spec.rows {
                for end in start..=spec.rows {
                    let got = pollster::block_on(gather(spec, &tensors, start..end)).unwrap();
                    let expected: Vec<f32> = (start..end).flat_map(row).collect();
                    assert_eq!(got, expected, "{} {start}..{end}", spec.name);
                }
            }
        }
    }

    #[test]
    fn missing_and_misshaped_sources_are_all_named() {
        let tensors = Numbers(vec![("conv", vec![4, 3, 2]), ("norm", vec![5])]);
        let good = [TensorSpec::matrix("conv", Class::Vision, 4, 6), TensorSpec::vector("norm", 5)];
        check_sources(&good, &tensors).unwrap();
        let bad = [TensorSpec::matrix("conv", Class::Vision, 4, 5), TensorSpec::vector("norms", 5)];
        let error = check_sources(&bad, &tensors).unwrap_err().to_string();
        assert!(error.contains("shape of `conv`: expected [4, 5], got [4, 3, 2]"), "{error}");
        assert!(error.contains("missing `norms` [5]; nearest is `norm`"), "{error}");
    }
}
