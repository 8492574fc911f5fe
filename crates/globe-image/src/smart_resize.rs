//! The size an image is resized to, exactly as `transformers` computes it.

use crate::error::{Error, Result};

const MAX_ASPECT_RATIO: f64 = 200.0;

/// Height and width in pixels: both multiples of `factor`, their product between `min_pixels` and
/// `max_pixels`, the aspect ratio kept as closely as those allow. Arguments are in pixels.
///
/// All arithmetic is f64, and the first rounding is half-to-even, because Python's is: with
/// factor 28, a height of 70 becomes 56 and one of 98 becomes 112.
///
/// # Errors
/// [`Error::AspectRatio`] above 200, which includes an empty image; [`Error::PixelLimits`] if
/// `max_pixels` is zero.
pub fn smart_resize(
    height: usize,
    width: usize,
    factor: usize,
    min_pixels: usize,
    max_pixels: usize,
) -> Result<[usize; 2]> {
    let (h, w, f) = (height as f64, width as f64, factor as f64);
    let ratio = h.max(w) / h.min(w);
    if ratio.is_nan() || ratio > MAX_ASPECT_RATIO {
        return Err(Error::AspectRatio { width, height });
    }
    if max_pixels == 0 {
        return Err(Error::PixelLimits { max_pixels, floor: 1, why: "one pixel" });
    }

    let (h_bar, w_bar) = ((h / f).round_ties_even() * f, (w / f).round_ties_even() * f);
    let (h_bar, w_bar) = if h_bar * w_bar > max_pixels as f64 {
        let beta = (h * w / max_pixels as f64).sqrt();
        (f.max((h / beta / f).floor() * f), f.max((w / beta / f).floor() * f))
    } else if h_bar * w_bar < min_pixels as f64 {
        let beta = (min_pixels as f64 / (h * w)).sqrt();
        ((h * beta / f).ceil() * f, (w * beta / f).ceil() * f)
    } else {
        (h_bar, w_bar)
    };
    Ok([h_bar as usize, w_bar as usize])
}
