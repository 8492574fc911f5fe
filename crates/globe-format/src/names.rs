//! Expected against stored tensors: every difference in one report.

use std::{collections::BTreeMap, fmt};

use crate::listing::MAX_LISTED;

/// Longer names are not compared: similarity costs the product of both lengths.
const MAX_COMPARED_BYTES: usize = 256;

/// Less similar names, from 0 to 1, would mislead more than help.
const MIN_SIMILARITY: f64 = 0.5;

/// A tensor the model needs and the checkpoint lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingTensor {
    /// Expected name.
    pub name: String,
    /// Expected shape.
    pub shape: Vec<usize>,
    /// The most similar name there is, looked up for the listed ones only.
    pub nearest: Option<String>,
}

/// A tensor whose shape is not the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Name, with the stored name where a mapping changed it.
    pub name: String,
    /// Shape the model needs.
    pub expected: Vec<usize>,
    /// Shape in the checkpoint.
    pub got: Vec<usize>,
}

/// Every difference between a model and a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameReport {
    /// Needed but absent.
    pub missing: Vec<MissingTensor>,
    /// Present with another shape.
    pub mismatched: Vec<ShapeMismatch>,
    /// Present but not needed, with the stored name where a mapping changed it.
    pub extra: Vec<String>,
}

impl NameReport {
    /// True when checkpoint and model agree.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.mismatched.is_empty() && self.extra.is_empty()
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let missing = self.missing.iter().map(|m| {
            let nearest = m.nearest.as_ref().map(|n| format!("; nearest is `{n}`"));
            format!("missing `{}` {:?}{}", m.name, m.shape, nearest.unwrap_or_default())
        });
        let mismatched = self
            .mismatched
            .iter()
            .map(|m| format!("shape of `{}`: expected {:?}, got {:?}", m.name, m.expected, m.got));
        let extra = self.extra.iter().map(|name| format!("extra `{name}`"));
        mismatched.chain(extra).chain(missing) // the rarer kinds say more
    }
}

impl fmt::Display for NameReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (missing, mismatched) = (self.missing.len(), self.mismatched.len());
        let extra = self.extra.len();
        write!(
            f,
            "checkpoint does not fit the model: {missing} tensors missing, \
             {mismatched} with another shape, {extra} extra; is this the right model?"
        )?;
        for line in self.lines().take(MAX_LISTED) {
            write!(f, "\n  {line}")?;
        }
        match (missing + mismatched + extra).saturating_sub(MAX_LISTED) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// A stored tensor, as the comparison sees it.
pub(crate) struct Present<'a> {
    pub shape: &'a [usize],
    /// How messages call it.
    pub label: String,
}

/// Compares; `ignore` accepts names that may be present without being needed.
pub(crate) fn compare(
    expected: &[(String, Vec<usize>)],
    present: &BTreeMap<&str, Present<'_>>,
    ignore: impl Fn(&str) -> bool,
) -> NameReport {
    let mut report = NameReport::default();
    let mut unused: BTreeMap<_, _> = present.iter().collect();
    for (name, shape) in expected {
        unused.remove(&name.as_str());
        match present.get(name.as_str()) {
            None => {
                let listed = report.missing.len() < MAX_LISTED;
                let nearest = listed.then(|| nearest(name, present.keys().copied())).flatten();
                report.missing.push(MissingTensor {
                    name: name.clone(),
                    shape: shape.clone(),
                    nearest,
                });
            }
            Some(tensor) if tensor.shape != shape => report.mismatched.push(ShapeMismatch {
                name: tensor.label.clone(),
                expected: shape.clone(),
                got: tensor.shape.to_vec(),
            }),
            Some(_) => {}
        }
    }
    let extra = unused.into_iter().filter(|(name, _)| !ignore(name));
    report.extra = extra.map(|(_, tensor)| tensor.label.clone()).collect();
    report
}

/// The candidate most similar to `name`, if any is similar enough.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    if name.len() > MAX_COMPARED_BYTES {
        return None;
    }
    candidates
        .filter(|candidate| candidate.len() <= MAX_COMPARED_BYTES)
        .map(|candidate| (strsim::normalized_levenshtein(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_similar_or_nothing() {
        let names = ["model.layers.0.mlp.up_proj.weight", "lm_head.weight"];
        let near = |name: &str| nearest(name, names.into_iter());
        assert_eq!(near("layers.0.mlp.up_proj.weight").as_deref(), Some(names[0]));
        assert_eq!(near("zzz"), None);
        assert_eq!(near(&"l".repeat(300)), None);
    }
}
