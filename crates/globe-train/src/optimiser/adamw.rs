//! AdamW with f32 master weights: the reference for device implementations, and good enough for adapters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, config::OptimiserSection, tensor::Tensors};

/// Bits of the two means that AdamW keeps of every parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum StateBits {
    /// Blocks of 256 values with a scale, by dynamic tree quantization (arXiv 2110.02861).
    Eight,
    /// f32.
    #[default]
    ThirtyTwo,
}

impl TryFrom<u32> for StateBits {
    type Error = String;

    fn try_from(bits: u32) -> std::result::Result<Self, String> {
        match bits {
            8 => Ok(Self::Eight),
            32 => Ok(Self::ThirtyTwo),
            other => Err(format!("{other} bits; known are 8 and 32")),
        }
    }
}

impl From<StateBits> for u32 {
    fn from(bits: StateBits) -> Self {
        match bits {
            StateBits::Eight => 8,
            StateBits::ThirtyTwo => 32,
        }
    }
}

/// Constants of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second mean.
    pub eps: f64,
    /// Weight decay per unit of learning rate, applied to the weight and not to the gradient.
    pub weight_decay: f64,
    /// How the means are kept on the device.
    pub state_bits: StateBits,
}

impl Default for AdamWConfig {
    /// Those of GLOBE's scripts.
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            state_bits: StateBits::default(),
        }
    }
}

impl From<&OptimiserSection> for AdamWConfig {
    fn from(section: &OptimiserSection) -> Self {
        let &OptimiserSection { beta1, beta2, eps, weight_decay, state_bits, .. } = section;
        Self { beta1, beta2, eps, weight_decay, state_bits }
    }
}

/// First and second mean per parameter, and the number of steps taken.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    config: AdamWConfig,
    steps: u64,
    /// Per name: mean of gradients, mean of their squares.
    means: BTreeMap<String, [Vec<f32>; 2]>,
}

impl AdamW {
    /// No steps taken, all means 0.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, steps: 0, means: BTreeMap::new() }
    }

    /// Steps taken, which the bias correction depends on.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Starts a step: call [`AdamW::update`] once for every parameter after it.
    pub fn begin_step(&mut self) {
        self.steps += 1;
    }

    /// Updates one parameter in the order of operations of `torch.optim.AdamW`, in f32.
    ///
    /// # Errors
    /// [`Error::Shape`] if `values` and `gradient`, or the means from an earlier step, differ in length.
    pub fn update(
        &mut self,
        name: &str,
        values: &mut [f32],
        gradient: &[f32],
        lr: f64,
    ) -> Result<()> {
        let AdamWConfig { beta1, beta2, eps, weight_decay, .. } = self.config;
        let n = values.len();
        let [mean, mean_sq] =
            self.means.entry(name.to_owned()).or_insert_with(|| [vec![0.0; n], vec![0.0; n]]);
        for got in [gradient.len(), mean.len(), mean_sq.len()] {
            if got != n {
                return Err(Error::Shape { name: name.into(), expected: vec![n], got: vec![got] });
            }
        }
        let steps = self.steps.max(1) as f64;
        let step_size = (lr / (1.0 - beta1.powf(steps))) as f32;
        let correction = (1.0 - beta2.powf(steps)).sqrt() as f32;
        let (keep, decay) = ((1.0 - beta1) as f32, (1.0 - lr * weight_decay) as f32);
        let (keep_sq, decay_sq) = ((1.0 - beta2) as f32, beta2 as f32);
        for i in 0..n {
            let g = gradient[i];
            values[i] *= decay;
            mean[i] += keep * (g - mean[i]);
            mean_sq[i] = mean_sq[i] * decay_sq + keep_sq * g * g;
            let root = mean_sq[i].sqrt() / correction + eps as f32;
            values[i] -= step_size * (mean[i] / root);
        }
        Ok(())
    }

    /// The means as `<name>.exp_avg` and `<name>.exp_avg_sq`, and `steps` as bits.
    pub fn save(&self) -> Tensors {
        let mut out = Tensors::default();
        for (name, [mean, mean_sq]) in &self.means {
            out.insert(format!("{name}.exp_avg"), &[mean.len()], mean.clone());
            out.insert(format!("{name}.exp_avg_sq"), &[mean_sq.len()], mean_sq.clone());
        }
        // Two halves below 2^24 are exact in f32 up to 2^48 steps.
        let halves = vec![(self.steps >> 24) as f32, (self.steps & 0xFF_FFFF) as f32];
        out.insert("steps".into(), &[2], halves);
        out
    }

    /// Takes over what [`AdamW::save`] gave.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if `steps` or one of two means is absent.
    pub fn load(&mut self, saved: &Tensors) -> Result<()> {
        let steps = saved.values("steps")?;
        let [high, low] = steps else {
            let got = vec![steps.len()];
            return Err(Error::Shape { name: "steps".into(), expected: vec![2], got });
        };
        let mut means = BTreeMap::new();
        for name in saved.names().filter_map(|n| n.strip_suffix(".exp_avg")) {
            let mean = saved.values(&format!("{name}.exp_avg"))?.to_vec();
            let mean_sq = saved.values(&format!("{name}.exp_avg_sq"))?.to_vec();
            means.insert(name.to_owned(), [mean, mean_sq]);
        }
        self.steps = ((*high as u64) << 24) | *low as u64;
        self.means = means;
        Ok(())
    }
}
