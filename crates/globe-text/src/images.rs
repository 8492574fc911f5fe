//! One placeholder id per image becomes one id per image token.

use crate::error::{Error, Result};

/// Repeats the n-th `image_id` in `ids` `n_merged_tokens[n]` times.
///
/// Special tokens split the text before any other rule of the tokenizer, so this gives the ids
/// that repeating the placeholder in the text would.
pub fn expand_images(ids: &[u32], image_id: u32, n_merged_tokens: &[usize]) -> Result<Vec<u32>> {
    let placeholders = ids.iter().filter(|&&id| id == image_id).count();
    let images = n_merged_tokens.len();
    if placeholders != images {
        return Err(Error::ImageCount { placeholders, images });
    }
    let mut counts = n_merged_tokens.iter();
    let mut out = Vec::with_capacity(ids.len());
    for &id in ids {
        let n = if id == image_id { counts.next().copied().unwrap_or(0) } else { 1 };
        out.extend(std::iter::repeat_n(id, n));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_each_placeholder() {
        assert_eq!(expand_images(&[1, 9, 2, 9], 9, &[3, 1]).unwrap(), [1, 9, 9, 9, 2, 9]);
        assert_eq!(expand_images(&[1, 2], 9, &[]).unwrap(), [1, 2]);
        assert_eq!(expand_images(&[9], 9, &[0]).unwrap(), [0_u32; 0]);
    }

    #[test]
    fn a_count_mismatch_names_both() {
        let error = expand_images(&[9, 9], 9, &[3]).unwrap_err().to_string();
        assert!(error.contains("2 image placeholders but 1 images"), "{error}");
    }
}
