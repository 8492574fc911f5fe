//! Where every array of a packed model goes, from the specs alone.

use super::{
    manifest::{ALIGN_BYTES, Extent, MAX_PART_BYTES, PackedTensor, Part},
    spec::{TensorSpec, check_specs},
};
use crate::{
    error::{Error, Result},
    quant::WeightFormat,
};

/// The tensors with their places, and the size of the virtual array.
///
/// # Errors
/// [`Error::Spec`] if a spec contradicts itself, or is larger than can be addressed.
pub fn plan(
    specs: &[TensorSpec],
    text: WeightFormat,
    vision: WeightFormat,
) -> Result<(Vec<PackedTensor>, u64)> {
    check_specs(specs).map_err(|(tensor, reason)| Error::Spec { tensor, reason })?;
    let mut end = 0;
    let tensors = specs.iter().map(|spec| {
        let tensor = PackedTensor {
            name: spec.name.clone(),
            format: spec.format(text, vision),
            shape: spec.shape(),
            parts: Vec::new(),
        };
        with_parts(tensor, spec.turn(), &mut end)
    });
    Ok((tensors.collect::<Result<_>>()?, end))
}

/// Cuts a tensor into equal parts of whole turns, the last one smaller, each placed after `end`.
fn with_parts(mut tensor: PackedTensor, turn: usize, end: &mut u64) -> Result<PackedTensor> {
    let (rows, row_bytes, scale_bytes) =
        (tensor.rows(), tensor.row_bytes(), tensor.row_scale_bytes());
    let too_large =
        || Error::Spec { tensor: tensor.name.clone(), reason: "is larger than 2^64 bytes".into() };
    let whole = (rows as u64).checked_mul(row_bytes + scale_bytes + 2 * ALIGN_BYTES);
    whole.and_then(|size| size.checked_add(*end)).ok_or_else(too_large)?;
    let most = usize::try_from(MAX_PART_BYTES / row_bytes).unwrap_or(usize::MAX);
    let most = (most / turn * turn).max(turn);
    let mut take = |size: u64| {
        let extent = Extent { offset: *end, size };
        *end = extent.end().next_multiple_of(ALIGN_BYTES);
        extent
    };
    for first_row in (0..rows).step_by(most) {
        let rows = most.min(rows - first_row);
        let words = take(rows as u64 * row_bytes);
        let scales = (scale_bytes > 0).then(|| take(rows as u64 * scale_bytes));
        tensor.parts.push(Part { first_row, rows, words, scales });
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::{Class, SourceRows};

    #[test]
    fn arrays_are_aligned_and_large_tensors_are_cut() {
        let specs = [
            TensorSpec::vector("norm", 70),
            TensorSpec::matrix("table", Class::Embedding, 152_064, 3584),
            TensorSpec::matrix("tower", Class::Vision, 3, 33),
        ];
        let (tensors, total) = plan(&specs, WeightFormat::Q4, WeightFormat::F16).unwrap();
        let [norm, table, tower] = tensors.as_slice() else { panic!("{tensors:?}") };
        assert_eq!(norm.parts[0].words, Extent { offset: 0, size: 280 });
        assert_eq!((norm.parts[0].scales, norm.format), (None, WeightFormat::F32));
        let most = (128 << 20) / 1792; // rows of 112 blocks
        let rows: Vec<_> = table.parts.iter().map(|part| (part.first_row, part.rows)).collect();
        assert_eq!(rows, [(0, most), (most, most), (2 * most, 152_064 - 2 * most)]);
        assert_eq!(table.parts[0].words.offset, 512);
        assert!(table.parts.iter().all(|part| part.scales.unwrap().offset % ALIGN_BYTES == 0));
        assert_eq!(table.parts[0].scales.unwrap().size, most as u64 * 112 * 2);
        assert_eq!(tower.parts[0].words.size, 3 * 2 * 64);
        assert_eq!(total, tower.parts[0].words.end().next_multiple_of(ALIGN_BYTES));
    }

    #[test]
    fn no_part_of_a_published_model_separates_gate_and_up() {
        let sizes = [(2048, 11_008), (3584, 18_944), (5120, 27_648), (8192, 29_568)];
        let formats = [WeightFormat::Q4, WeightFormat::Q8, WeightFormat::F16];
        for ((cols, rows), format) in sizes.into_iter().flat_map(|s| formats.map(|f| (s, f))) {
            let source =
                |name: &str| SourceRows { name: name.into(), rows, cols, padded_rows: rows };
            let sources = vec![source("gate"), source("up")];
            let spec = TensorSpec::interleave("gate_up", Class::Text, sources);
            let (tensors, _) = plan(&[spec], format, format).unwrap();
            let (mut covered, what) = (0, format!("{rows} x {cols} as {format}"));
            for part in &tensors[0].parts {
                assert_eq!((part.first_row, part.rows % 2), (covered, 0), "{what}");
                assert!(part.words.size <= MAX_PART_BYTES, "{what}");
                covered += part.rows;
            }
            assert_eq!(covered, 2 * rows, "{what}");
        }
    }

    #[test]
    fn what_cannot_be_addressed_is_refused() {
        let huge = TensorSpec::matrix("m", Class::Text, usize::MAX, 64);
        let error = plan(&[huge], WeightFormat::Q4, WeightFormat::Q8).unwrap_err();
        assert!(matches!(error, Error::Spec { .. }), "{error}");
        let error = plan(&[TensorSpec::vector("v", 0)], WeightFormat::Q4, WeightFormat::Q8);
        assert_eq!(
            error.unwrap_err().to_string(),
            "`v` is empty; the model asks for what cannot be packed, please report it"
        );
    }
}
