//! Rotary tables, and the positions of text and image tokens.

use globe_ops::{Device, Tensor, tensor_f32};

use crate::{ImageGrid, Result};

/// Cosines and sines for positions `0..n_positions`: `[n_positions, 2 * half]`, cosines first.
///
/// Frequency `i` is `theta^(-2 i / dim)` for `i` in `0..dim / 2`, repeated to fill `half`
/// (arXiv 2104.09864, eq. 15). Frequencies and angles are rounded to f32 as torch does.
pub(crate) fn rotary_table(
    n_positions: usize,
    half: usize,
    dim: usize,
    theta: f64,
    device: &Device,
) -> Tensor<2> {
    let inverse: Vec<f32> = (0..dim / 2)
        .map(|i| {
            let exponent = (2 * i) as f32 / dim as f32;
            1.0 / theta.powf(f64::from(exponent)) as f32
        })
        .collect();
    let mut values = Vec::with_capacity(n_positions * 2 * half);
    for position in 0..n_positions {
        let angle = |i: usize| f64::from(position as f32 * inverse[i % inverse.len()]);
        values.extend((0..half).map(|i| angle(i).cos() as f32));
        values.extend((0..half).map(|i| angle(i).sin() as f32));
    }
    tensor_f32(values, [n_positions, 2 * half], device)
}

/// Position of every prompt token on the three axes of multimodal RoPE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MropePositions {
    /// Time, height and width of each token.
    pub axes: [Vec<i32>; 3],
    /// What to add to a later token's index to get its position.
    pub delta: i32,
}

/// Positions as Qwen2-VL counts them (arXiv 2409.12191, section 2.1): text advances all axes
/// together; an image holds time still and spans its merged rows and columns; what follows starts
/// after the largest position so far.
///
/// # Errors
/// [`crate::Error::ImageTokens`] if runs of `image_token` in `ids` do not match `grids`,
/// [`crate::Error::Grid`] if a grid does not divide by `merge`.
pub fn mrope_positions(
    ids: &[u32],
    image_token: u32,
    grids: &[ImageGrid],
    merge: usize,
) -> Result<MropePositions> {
    let mut axes: [Vec<i32>; 3] = Default::default();
    let mut next = 0i32;
    let mut at = 0;
    let mut images = grids.iter();
    while at < ids.len() {
        if ids[at] != image_token {
            axes.iter_mut().for_each(|axis| axis.push(next));
            next += 1;
            at += 1;
            continue;
        }
        let [frames, rows, columns] = match images.next() {
            Some(grid) => grid.merged(merge)?,
            None => return Err(mismatch(ids, image_token, grids, merge)),
        };
        let tokens = frames * rows * columns;
        if ids[at..].iter().take(tokens).filter(|id| **id == image_token).count() < tokens {
            return Err(mismatch(ids, image_token, grids, merge));
        }
        for token in 0..tokens {
            axes[0].push(next + (token / (rows * columns)) as i32);
            axes[1].push(next + (token / columns % rows) as i32);
            axes[2].push(next + (token % columns) as i32);
        }
        next += frames.max(rows).max(columns) as i32;
        at += tokens;
    }
    if images.next().is_some() {
        return Err(mismatch(ids, image_token, grids, merge));
    }
    Ok(MropePositions { axes, delta: next - ids.len() as i32 })
}

fn mismatch(ids: &[u32], image_token: u32, grids: &[ImageGrid], merge: usize) -> crate::Error {
    crate::Error::ImageTokens {
        in_prompt: ids.iter().filter(|id| **id == image_token).count(),
        from_images: grids.iter().map(|g| g.patches() / (merge * merge)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: u32 = 9;

    #[test]
    fn text_alone_counts_up_on_every_axis() {
        let positions = mrope_positions(&[1, 2, 3], IMAGE, &[], 2).unwrap();
        assert_eq!(positions.axes, [vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2]]);
        assert_eq!(positions.delta, 0);
    }

    #[test]
    fn an_image_spans_rows_and_columns_and_text_goes_on_after_the_largest() {
        let ids = [1, IMAGE, IMAGE, IMAGE, IMAGE, IMAGE, IMAGE, 2];
        let positions = mrope_positions(&ids, IMAGE, &[ImageGrid([1, 4, 6])], 2).unwrap();
        assert_eq!(positions.axes[0], [0, 1, 1, 1, 1, 1, 1, 4]);
        assert_eq!(positions.axes[1], [0, 1, 1, 1, 2, 2, 2, 4]);
        assert_eq!(positions.axes[2], [0, 1, 2, 3, 1, 2, 3, 4]);
        assert_eq!(positions.delta, 5 - 8);
    }

    #[test]
    fn refuses_more_or_fewer_image_tokens_than_the_grids_give() {
        for ids in [&[IMAGE][..], &[IMAGE; 5], &[1, 2]] {
            let grids = [ImageGrid([1, 4, 4])];
            assert!(mrope_positions(ids, IMAGE, &grids, 2).is_err(), "{ids:?}");
        }
    }
}
