//! An RGB photo to the normalised patches of a Qwen2-VL vision tower.

use std::borrow::Cow;

use crate::config::PreprocessorConfig;
use crate::decode::Photo;
use crate::error::Result;
use crate::resize::resize_rgb;

const CHANNELS: usize = 3;

/// One image as the vision tower reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Patches {
    /// `[grid_t * grid_h * grid_w, channels * temporal_patch_size * patch_size * patch_size]`,
    /// row-major. Rows come in windows of `merge_size * merge_size` patches, so that each window is
    /// contiguous; a row is ordered channel, frame, y, x.
    pub pixel_values: Vec<f32>,
    /// Frames, rows and columns of the patch grid; frames is 1 for an image.
    pub grid_thw: [usize; 3],
}

impl Patches {
    /// Number of patches, the first dimension of `pixel_values`.
    pub fn rows(&self) -> usize {
        self.grid_thw.iter().product()
    }

    /// Number of values in a patch, the second dimension of `pixel_values`.
    pub fn row_len(&self) -> usize {
        self.pixel_values.len() / self.rows()
    }
}

/// Resizes, rescales, normalises and cuts a photo into patches. `max_pixels`, if given, replaces
/// the limit of the configuration (pixels after resizing).
///
/// # Errors
/// Bad configuration, an aspect ratio above 200, or limits that contradict each other.
pub fn preprocess(
    photo: &Photo,
    config: &PreprocessorConfig,
    max_pixels: Option<usize>,
) -> Result<Patches> {
    config.validate()?;
    photo.check()?;
    let [height, width] = config.target_size(photo.height, photo.width, max_pixels)?;
    let rgb = if [height, width] == [photo.height, photo.width] {
        Cow::Borrowed(&photo.rgb)
    } else {
        let from = [photo.width, photo.height];
        Cow::Owned(resize_rgb(&photo.rgb, from, [width, height], config.resample)?)
    };
    Ok(patchify(&rgb, height, width, config))
}

/// `rgb: [height, width, 3]`, both sizes multiples of the factor.
fn patchify(rgb: &[u8], height: usize, width: usize, config: &PreprocessorConfig) -> Patches {
    let table = value_table(config);
    let (patch, merge) = (config.patch_size, config.merge_size);
    let (grid_h, grid_w) = (height / patch, width / patch);
    let row_len = CHANNELS * config.temporal_patch_size * patch * patch;
    let mut pixel_values = vec![0.0; grid_h * grid_w * row_len];
    let mut rows = pixel_values.chunks_exact_mut(row_len);
    for window in 0..grid_h * grid_w / (merge * merge) {
        let (window_y, window_x) = (window / (grid_w / merge), window % (grid_w / merge));
        for (y, x) in (0..merge).flat_map(|y| (0..merge).map(move |x| (y, x))) {
            let origin = [(window_y * merge + y) * patch, (window_x * merge + x) * patch];
            let row = rows.next().expect("one row per patch was allocated");
            write_patch(row, rgb, width, origin, &table, config);
        }
    }
    Patches { pixel_values, grid_thw: [1, grid_h, grid_w] }
}

/// Fills `row: [channels, frames, patch, patch]` from the square at `[y0, x0]`.
fn write_patch(
    row: &mut [f32],
    rgb: &[u8],
    width: usize,
    [y0, x0]: [usize; 2],
    table: &[[f32; 256]; CHANNELS],
    config: &PreprocessorConfig,
) {
    let patch = config.patch_size;
    let area = patch * patch;
    let planes = row.chunks_exact_mut(config.temporal_patch_size * area);
    for (channel, (frames, values)) in planes.zip(table).enumerate() {
        for (dy, line) in frames[..area].chunks_exact_mut(patch).enumerate() {
            let start = ((y0 + dy) * width + x0) * CHANNELS;
            let pixels = rgb[start..start + patch * CHANNELS].chunks_exact(CHANNELS);
            for (value, pixel) in line.iter_mut().zip(pixels) {
                *value = values[usize::from(pixel[channel])];
            }
        }
        for frame in 1..config.temporal_patch_size {
            frames.copy_within(..area, frame * area);
        }
    }
}

/// The normalised value of every sample, per channel. Rescaling is in f64 and rounded to f32,
/// normalising is in f32, as `transformers` does; a table makes that free.
fn value_table(config: &PreprocessorConfig) -> [[f32; 256]; CHANNELS] {
    std::array::from_fn(|channel| {
        let (mean, std) = (config.image_mean[channel] as f32, config.image_std[channel] as f32);
        std::array::from_fn(|sample| {
            let scale = if config.do_rescale { config.rescale_factor } else { 1.0 };
            let value = (sample as f64 * scale) as f32;
            if config.do_normalize { (value - mean) / std } else { value }
        })
    })
}
