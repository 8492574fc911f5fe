//! Many tokens at once: how fast, and how far from the arithmetic roof.

use globe_model::{Config, ImageGrid, TextConfig, VisionConfig};
use serde::Serialize;

use super::Roof;
use super::stats::Stats;

/// One pass over many tokens.
#[derive(Serialize)]
pub struct Phase {
    pub seconds: Stats,
    pub tokens_per_second: f64,
    /// A product and a sum count as two.
    pub gigaflops_per_second: f64,
    pub share_of_arithmetic: f64,
}

impl Phase {
    pub fn new(seconds: Stats, tokens: usize, flops: f64, roof: &Roof) -> Self {
        let gigaflops_per_second = flops / seconds.median / 1e9;
        Self {
            tokens_per_second: tokens as f64 / seconds.median,
            gigaflops_per_second,
            share_of_arithmetic: gigaflops_per_second / roof.gigaflops_per_second,
            seconds,
        }
    }

    /// What people read of it.
    pub fn text(&self) -> String {
        format!(
            "{:.1} ms ± {:.1}, {:.1} GFLOP/s, {:.0} % of the arithmetic roof",
            self.seconds.median * 1e3,
            self.seconds.spread * 1e3,
            self.gigaflops_per_second,
            self.share_of_arithmetic * 100.0,
        )
    }
}

/// What a pass moves and launches besides.
#[derive(Serialize)]
pub struct Moved {
    /// Least that must be moved: every weight once, and keys and values written.
    pub bytes: u64,
    pub gigabytes_per_second: f64,
    pub share_of_copy_bandwidth: f64,
    pub dispatches: usize,
    /// Until everything is launched, before anything is waited for.
    pub host_microseconds: f64,
}

/// What was measured of a pass, several times.
#[derive(Default)]
pub struct Measured {
    seconds: Vec<f64>,
    host_seconds: Vec<f64>,
    pub dispatches: usize,
}

impl Measured {
    /// Adds one measurement if it `counts`.
    pub fn note(&mut self, counts: bool, seconds: f64, host_seconds: f64) {
        if counts {
            self.seconds.push(seconds);
            self.host_seconds.push(host_seconds);
        }
    }

    /// What it says of a pass over so many tokens that computes `flops` and moves `bytes`.
    pub fn of(self, tokens: usize, flops: f64, bytes: u64, roof: &Roof) -> (Phase, Moved) {
        let seconds = Stats::new(self.seconds);
        let gigabytes_per_second = bytes as f64 / seconds.median / 1e9;
        let moved = Moved {
            bytes,
            gigabytes_per_second,
            share_of_copy_bandwidth: gigabytes_per_second / roof.copy_gigabytes_per_second,
            dispatches: self.dispatches,
            host_microseconds: Stats::new(self.host_seconds).median * 1e6,
        };
        (Phase::new(seconds, tokens, flops, roof), moved)
    }
}

impl Moved {
    /// What people read of it.
    pub fn text(&self) -> String {
        format!(
            "{:.0} % of the copy roof, {} dispatches, host {:.0} us",
            self.share_of_copy_bandwidth * 100.0,
            self.dispatches,
            self.host_microseconds
        )
    }
}

/// Floating-point operations of a prompt of so many tokens, up to the logits of its last one. Norms, rotations and the
/// softmax, well below a hundredth, are left out.
pub fn of_prompt(config: &Config, tokens: usize) -> f64 {
    let text = &config.text;
    let heads = text.num_attention_heads * text.head_dim();
    // Scores and sums of values, of the keys up to each token: half of all pairs.
    let attention = 2.0 * 2.0 * (heads * tokens) as f64 * (tokens + 1) as f64 / 2.0;
    let products = 2.0 * (layer_weights(text) * tokens) as f64;
    let head = 2.0 * (text.vocab_size * text.hidden_size) as f64;
    text.num_hidden_layers as f64 * (attention + products) + head
}

fn layer_weights(text: &TextConfig) -> usize {
    let (hidden, head_dim) = (text.hidden_size, text.head_dim());
    let queries = text.num_attention_heads * head_dim;
    let keys = text.n_kv_heads() * head_dim;
    hidden * (2 * queries + 2 * keys + 3 * text.intermediate_size)
}

/// Floating-point operations of an image through the tower and its merger.
pub fn of_image(vision: &VisionConfig, grid: &ImageGrid) -> f64 {
    let (patches, hidden) = (grid.patches(), vision.hidden_size);
    let weights = hidden * (4 * hidden + 3 * vision.intermediate_size);
    let [_, height, width] = grid.0;
    let side = vision.window_size / vision.patch_size;
    let in_window = side.min(height) * side.min(width);
    let seen = |block: usize| match vision.fullatt_block_indexes.contains(&block) {
        true => patches,
        false => in_window,
    };
    let pairs: f64 = (0..vision.depth).map(|block| (patches * seen(block)) as f64).sum();
    let merged = vision.spatial_merge_size * vision.spatial_merge_size;
    let merger = merged * hidden * (merged * hidden + vision.out_hidden_size);
    let embedding = patches * vision.patch_values() * hidden;
    let products = vision.depth * patches * weights + embedding + patches / merged * merger;
    2.0 * products as f64 + 2.0 * 2.0 * hidden as f64 * pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Shape;

    #[test]
    fn operations_of_the_published_7b_are_two_for_each_weight_and_token() {
        let config = Shape::Seven.config();
        assert_eq!(28 * layer_weights(&config.text), 6_525_288_448);
        let layers = 6_525_288_448.0;
        let head = (152_064 * 3584) as f64;
        let one = of_prompt(&config, 1);
        assert!((one / (2.0 * (layers + head)) - 1.0).abs() < 1e-3, "{one}");
        let many = of_prompt(&config, 512);
        assert!(many > 512.0 * 2.0 * layers && many < 1.05 * 512.0 * 2.0 * layers, "{many}");
    }

    #[test]
    fn windows_cost_less_than_the_whole_image() {
        let vision = Shape::Seven.config().vision;
        let grid = ImageGrid([1, 64, 64]);
        let mut all = vision.clone();
        all.fullatt_block_indexes = (0..vision.depth).collect();
        // 28 blocks in which each of 4096 patches sees 64 of them instead of all.
        let pairs = 28.0 * 4096.0 * (4096.0 - 64.0);
        let saved = of_image(&all, &grid) - of_image(&vision, &grid);
        assert!((saved / (4.0 * 1280.0 * pairs) - 1.0).abs() < 1e-9, "{saved}");
    }
}
