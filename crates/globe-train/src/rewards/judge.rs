//! Someone who answers yes or no about a photo and a text.

use crate::Result;

/// One question.
#[derive(Clone, Copy, Debug)]
pub struct JudgeRequest<'a> {
    /// Encoded bytes of the photo.
    pub image: &'a [u8],
    /// The whole question, ending so that `Yes` or `No` is the next word.
    pub question: &'a str,
}

/// Logits or log-probabilities of `yes` and `no`, each over all its spellings (log-sum-exp).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YesNo {
    /// Of `yes`; minus infinity when it was not among the tokens looked at.
    pub yes: f64,
    /// Of `no`.
    pub no: f64,
}

impl YesNo {
    /// `p(yes) / (p(yes) + p(no))`, or `None` when neither was seen or a value is not a number.
    pub fn p_yes(self) -> Option<f64> {
        let most = self.yes.max(self.no);
        if !most.is_finite() || self.yes.is_nan() || self.no.is_nan() {
            return None;
        }
        let [yes, no] = [self.yes, self.no].map(|x| (x - most).exp());
        Some(yes / (yes + no))
    }

    /// Sums spellings: every `(token text, logit)` that reads `yes` or `no` apart from case and
    /// surrounding space or punctuation.
    pub fn from_tokens<'a>(tokens: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        let mut out = Self { yes: f64::NEG_INFINITY, no: f64::NEG_INFINITY };
        for (token, logit) in tokens {
            let bare = token.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
            match bare.as_str() {
                "yes" => out.yes = log_add(out.yes, logit),
                "no" => out.no = log_add(out.no, logit),
                _ => {}
            }
        }
        out
    }
}

fn log_add(a: f64, b: f64) -> f64 {
    let most = a.max(b);
    if most == f64::NEG_INFINITY { most } else { most + ((a - most).exp() + (b - most).exp()).ln() }
}

/// A model that judges: an adapter over the policy's own base, or a server.
pub trait Judge {
    /// One answer per question, in order.
    ///
    /// # Errors
    /// If the judge cannot be reached or breaks its contract.
    fn judge(&mut self, requests: &[JudgeRequest<'_>]) -> Result<Vec<YesNo>>;
}

impl<J: Judge + ?Sized> Judge for Box<J> {
    fn judge(&mut self, requests: &[JudgeRequest<'_>]) -> Result<Vec<YesNo>> {
        (**self).judge(requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_summed() {
        let tokens = [("Yes", 0.3), (" yes", 0.1), ("No", 0.2), ("Maybe", 0.4), ("yesterday", 9.0)];
        let got = YesNo::from_tokens(tokens.map(|(t, p): (_, f64)| (t, p.ln())));
        assert!((got.p_yes().unwrap() - 0.4 / 0.6).abs() < 1e-12);
    }

    #[test]
    fn without_evidence_there_is_no_probability() {
        assert_eq!(YesNo::from_tokens([("Well", 0.0)]).p_yes(), None);
        assert_eq!(YesNo { yes: f64::NAN, no: 0.0 }.p_yes(), None);
        assert_eq!(YesNo { yes: f64::NEG_INFINITY, no: -3.0 }.p_yes(), Some(0.0));
        assert_eq!(YesNo { yes: 2000.0, no: -2000.0 }.p_yes(), Some(1.0));
    }
}
