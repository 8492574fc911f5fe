//! Order, positions and attention ranges of the patches of one or more images.

use crate::{ImageGrid, Result, VisionConfig};

/// Where each patch goes when the tower walks window by window.
///
/// Patches arrive in merge order: frame, then merged rows and columns, then the patches of each
/// merged token. The tower wants the merged tokens of one window next to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisionLayout {
    /// Arrival index of each patch, in window order.
    pub patch_order: Vec<i32>,
    /// Place in window order of each merged token, in arrival order: undoes the reordering.
    pub token_places: Vec<i32>,
    /// Row, then column of each patch in its image, in window order.
    pub positions: [Vec<i32>; 2],
    /// Half-open range of patches that each patch attends to inside its window.
    pub window_ranges: Vec<[i32; 2]>,
    /// The same for blocks that attend over the whole frame.
    pub full_ranges: Vec<[i32; 2]>,
}

impl VisionLayout {
    /// The layout of images with these patch grids.
    ///
    /// # Errors
    /// [`crate::Error::Grid`] if a grid does not divide by the merge size.
    pub fn new(grids: &[ImageGrid], config: &VisionConfig) -> Result<Self> {
        let mut layout = Self {
            patch_order: Vec::new(),
            token_places: Vec::new(),
            positions: Default::default(),
            window_ranges: Vec::new(),
            full_ranges: Vec::new(),
        };
        for grid in grids {
            let [frames, rows, columns] = grid.merged(config.spatial_merge_size)?;
            for _ in 0..frames {
                layout.push_frame(rows, columns, config);
            }
        }
        Ok(layout)
    }

    fn push_frame(&mut self, rows: usize, columns: usize, config: &VisionConfig) {
        let side = config.window_tokens();
        let area = config.merge_area();
        let first_token = self.token_places.len();
        let frame = range(self.patch_order.len(), rows * columns * area);
        self.token_places.resize(first_token + rows * columns, 0);
        for window_row in (0..rows).step_by(side) {
            for window_column in (0..columns).step_by(side) {
                let height = side.min(rows - window_row);
                let width = side.min(columns - window_column);
                let window = range(self.patch_order.len(), height * width * area);
                for row in window_row..window_row + height {
                    for column in window_column..window_column + width {
                        let token = first_token + row * columns + column;
                        self.push_token(token, row, column, config.spatial_merge_size);
                        self.window_ranges.extend(std::iter::repeat_n(window, area));
                        self.full_ranges.extend(std::iter::repeat_n(frame, area));
                    }
                }
            }
        }
    }

    fn push_token(&mut self, token: usize, row: usize, column: usize, merge: usize) {
        let area = merge * merge;
        self.token_places[token] = (self.patch_order.len() / area) as i32;
        for patch in 0..area {
            self.patch_order.push((token * area + patch) as i32);
            self.positions[0].push((row * merge + patch / merge) as i32);
            self.positions[1].push((column * merge + patch % merge) as i32);
        }
    }
}

fn range(start: usize, len: usize) -> [i32; 2] {
    [start as i32, (start + len) as i32]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VisionConfig {
        serde_json::from_value(serde_json::json!({
            "depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 1,
            "out_hidden_size": 8, "window_size": 56, "patch_size": 14, "spatial_merge_size": 2,
        }))
        .unwrap()
    }

    #[test]
    fn a_frame_of_three_by_three_tokens_splits_into_four_windows() {
        let layout = VisionLayout::new(&[ImageGrid([1, 6, 6])], &config()).unwrap();
        let tokens: Vec<_> = layout.patch_order.iter().step_by(4).map(|p| p / 4).collect();
        assert_eq!(tokens, [0, 1, 3, 4, 2, 5, 6, 7, 8]);
        assert_eq!(layout.token_places, [0, 1, 4, 2, 3, 5, 6, 7, 8]);
        let windows: Vec<_> = layout.window_ranges.iter().step_by(4).copied().collect();
        assert_eq!(windows[..4], [[0, 16]; 4]);
        assert_eq!(windows[4..], [[16, 24], [16, 24], [24, 32], [24, 32], [32, 36]]);
        assert!(layout.full_ranges.iter().all(|r| *r == [0, 36]));
        assert_eq!(layout.positions[0][..8], [0, 0, 1, 1, 0, 0, 1, 1]);
        assert_eq!(layout.positions[1][..8], [0, 1, 0, 1, 2, 3, 2, 3]);
    }

    #[test]
    fn two_images_do_not_see_each_other() {
        let grids = [ImageGrid([1, 2, 2]), ImageGrid([1, 2, 4])];
        let layout = VisionLayout::new(&grids, &config()).unwrap();
        assert_eq!(layout.full_ranges[..4], [[0, 4]; 4]);
        assert_eq!(layout.full_ranges[4..], [[4, 12]; 8]);
        assert_eq!(layout.token_places, [0, 1, 2]);
    }

    #[test]
    fn refuses_a_grid_that_does_not_merge() {
        assert!(VisionLayout::new(&[ImageGrid([1, 3, 2])], &config()).is_err());
    }
}
