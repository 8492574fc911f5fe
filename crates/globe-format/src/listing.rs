//! Capped lists for error messages.

use std::fmt;

/// Most lines an error message lists before it says how many more there are: above the tensors of a
/// 7B model, so that one message lists them all.
pub const MAX_LISTED: usize = 1000;

/// Shows names one per line, at most [`MAX_LISTED`].
pub(crate) struct Listing<'a>(pub &'a [String]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in self.0.iter().take(MAX_LISTED) {
            write!(f, "\n  {name}")?;
        }
        match self.0.len().saturating_sub(MAX_LISTED) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_the_list() {
        let names: Vec<String> = (0..MAX_LISTED + 3).map(|i| format!("n{i}")).collect();
        let text = Listing(&names).to_string();
        assert_eq!(text.lines().count(), MAX_LISTED + 2);
        assert!(text.ends_with("\n  and 3 more"));
        assert_eq!(Listing(&names[..MAX_LISTED]).to_string().lines().count(), MAX_LISTED + 1);
    }
}
