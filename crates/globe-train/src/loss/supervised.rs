//! Losses with a known right answer: imitation and yes/no judgement.

/// Cross entropy of a micro-batch.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Its share of the step's loss.
    pub loss: f64,
    /// d loss / d log-probability of the chosen token.
    pub dlogp: Vec<Vec<f64>>,
    /// d loss / d mean log-probability over the vocabulary; all 0 without smoothing.
    pub dmean_logp: Vec<Vec<f64>>,
}

/// Mean over tokens of `-(1 - smoothing) logp - smoothing * mean_v logp_v`.
///
/// `logp`: per answer, the log-probability of each target token. `mean_logp`: the mean over the
/// vocabulary at the same positions, only read when `smoothing` is not 0 (`None` then counts as
/// nothing to smooth). `mask` chooses tokens. `tokens` is their number in the whole optimiser step.
pub fn cross_entropy(
    logp: &[&[f64]],
    mean_logp: Option<&[&[f64]]>,
    mask: &[&[bool]],
    tokens: f64,
    smoothing: f64,
) -> CrossEntropy {
    let n = tokens.max(1.0);
    let smoothing = if mean_logp.is_some() { smoothing } else { 0.0 };
    let mut loss = 0.0;
    let gradient = |weight: f64| -> Vec<Vec<f64>> {
        mask.iter()
            .map(|row| row.iter().map(|&m| if m { -weight / n } else { 0.0 }).collect())
            .collect()
    };
    for (i, row) in logp.iter().enumerate() {
        for (t, value) in row.iter().enumerate().filter(|&(t, _)| mask[i][t]) {
            loss -= (1.0 - smoothing) * value / n;
            if let Some(mean) = mean_logp.filter(|_| smoothing != 0.0) {
                loss -= smoothing * mean[i][t] / n;
            }
        }
    }
    CrossEntropy { loss, dlogp: gradient(1.0 - smoothing), dmean_logp: gradient(smoothing) }
}

/// Loss of one yes/no judgement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YesNoLoss {
    /// `-log p` of the label.
    pub loss: f64,
    /// `p(yes) / (p(yes) + p(no))`.
    pub p_yes: f64,
    /// d loss / d log p(yes).
    pub d_yes: f64,
    /// d loss / d log p(no).
    pub d_no: f64,
}

/// Binary cross entropy of `p(yes) / (p(yes) + p(no))`.
///
/// `yes` and `no` are log-probabilities or logits: only their difference counts.
pub fn yes_no_loss(yes: f64, no: f64, label: bool) -> YesNoLoss {
    let margin = yes - no;
    let p_yes = sigmoid(margin);
    let signed = if label { margin } else { -margin };
    // log(1 + exp(-signed)) without overflow.
    let loss = (-signed).max(0.0) + (-signed.abs()).exp().ln_1p();
    let d_yes = p_yes - f64::from(u8::from(label));
    YesNoLoss { loss, p_yes, d_yes, d_no: -d_yes }
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_is_the_masked_mean_and_its_gradient_adds_up() {
        let (a, b) = ([-1.0, -2.0], [-0.5]);
        let (m, k) = ([true, false], [true]);
        let got = cross_entropy(&[&a, &b], None, &[&m, &k], 2.0, 0.0);
        assert!((got.loss - 0.75).abs() < 1e-15);
        assert_eq!(got.dlogp, [vec![-0.5, 0.0], vec![-0.5]]);
        let mean = [[-3.0, -9.0]];
        let got = cross_entropy(&[&a], Some(&[&mean[0]]), &[&m], 1.0, 0.1);
        assert!((got.loss - (0.9 + 0.3)).abs() < 1e-15);
        assert_eq!((got.dlogp[0][0], got.dmean_logp[0][0]), (-0.9, -0.1));
        assert_eq!(cross_entropy(&[], None, &[], 0.0, 0.0).loss, 0.0);
    }

    #[test]
    fn yes_no_matches_central_differences_and_survives_extremes() {
        for label in [true, false] {
            for (yes, no) in [(-0.3, -1.4), (2.0, 2.0), (-9.0, -0.1)] {
                let got = yes_no_loss(yes, no, label);
                let h = 1e-6;
                let at = |dy: f64, dn: f64| yes_no_loss(yes + dy, no + dn, label).loss;
                assert!(((at(h, 0.0) - at(-h, 0.0)) / (2.0 * h) - got.d_yes).abs() < 1e-8);
                assert!(((at(0.0, h) - at(0.0, -h)) / (2.0 * h) - got.d_no).abs() < 1e-8);
            }
        }
        assert_eq!(yes_no_loss(900.0, -900.0, false).loss, 1800.0);
        assert_eq!(yes_no_loss(0.0, 0.0, true).p_yes, 0.5);
        assert_eq!(yes_no_loss(-1e4, 1e4, false).loss, 0.0);
    }
}
