//! AdamW over all adapters of a model, on the device.

use globe_model::{LoraModules, LoraParameters};
use globe_ops::{AdamStep, Tensor, adamw, read_f32, sum_squares, zeros};
use globe_train::optimiser::{AdamWConfig, clip_by_norm};
use globe_train::{PolicyError, PolicyResult, StepOutcome, Tensors};

use crate::policy::{device_error, failed};

/// What the two means are called, as [`globe_train::optimiser::AdamW`] saves them.
const MEANS: [&str; 2] = ["exp_avg", "exp_avg_sq"];
/// Name of the step count.
const STEPS: &str = "steps";

/// Means per parameter, laid out like the parameters.
pub(crate) struct DeviceAdamW {
    config: AdamWConfig,
    steps: u64,
    means: [Vec<Tensor<2>>; 2],
    /// 1 where a parameter is trained.
    masks: Vec<Option<Tensor<2>>>,
}

impl DeviceAdamW {
    /// No steps taken, all means zero.
    pub(crate) fn new(
        config: AdamWConfig,
        parameters: &LoraParameters,
        device: &globe_ops::Device,
    ) -> Self {
        let mean = || parameters.shapes().into_iter().map(|shape| zeros(shape, device)).collect();
        Self { config, steps: 0, means: [mean(), mean()], masks: parameters.masks() }
    }

    /// One step along `gradients`, scaled down to `max_grad_norm` (0: not).
    pub(crate) fn step(
        &mut self,
        parameters: &mut LoraParameters,
        gradients: Vec<Tensor<2>>,
        lr: f64,
        max_grad_norm: f64,
    ) -> PolicyResult<StepOutcome> {
        // Rows of one module and columns of another meet in zeros that are no parameters.
        let masked = |(gradient, mask): (Tensor<2>, &Option<Tensor<2>>)| match mask {
            Some(mask) => gradient * mask.clone(),
            None => gradient,
        };
        let gradients: Vec<_> = gradients.into_iter().zip(&self.masks).map(masked).collect();
        let grad_norm = norm(&gradients)?;
        if !grad_norm.is_finite() {
            return Ok(StepOutcome { grad_norm, applied: false });
        }
        self.steps += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let gradient_scale = clip_by_norm(grad_norm, max_grad_norm);
        let steps = self.steps as i32;
        let step = AdamStep {
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
            correction1: 1.0 - beta1.powi(steps),
            correction2: 1.0 - beta2.powi(steps),
            gradient_scale: f64::from(gradient_scale),
        };
        let mut gradients = gradients.into_iter();
        let [mean, mean_sq] = &mut self.means;
        parameters.update(|i, parameter| {
            let gradient = gradients.next().ok_or_else(|| failed("a gradient is missing"))?;
            let shape = parameter.dims();
            let n = shape[0] * shape[1];
            let flat = |t: Tensor<2>| t.reshape([n]);
            let (m, v) = (flat(mean[i].clone()), flat(mean_sq[i].clone()));
            let (parameter, m, v) =
                adamw(flat(parameter), flat(gradient), m, v, &step).map_err(device_error)?;
            mean[i] = m.reshape(shape);
            mean_sq[i] = v.reshape(shape);
            Ok::<_, PolicyError>(parameter.reshape(shape))
        })?;
        Ok(StepOutcome { grad_norm, applied: true })
    }

    /// The means by PEFT's names, and the step count.
    pub(crate) fn save(
        &self,
        parameters: &LoraParameters,
        to_tensors: impl Fn(LoraModules) -> Tensors,
    ) -> PolicyResult<Tensors> {
        let mut out = Tensors::default();
        for (means, suffix) in self.means.iter().zip(MEANS) {
            let modules = pollster::block_on(parameters.read(Some(means))).map_err(device_error)?;
            for (name, shape, values) in to_tensors(modules).iter() {
                out.insert(format!("{name}.{suffix}"), shape, values.to_vec());
            }
        }
        // Two halves below 2^24 are exact in f32 up to 2^48 steps.
        let halves = vec![(self.steps >> 24) as f32, (self.steps & 0xFF_FFFF) as f32];
        out.insert(STEPS.into(), &[2], halves);
        Ok(out)
    }

    /// Takes over what [`DeviceAdamW::save`] gave. Without any step saved, all means are zero.
    pub(crate) fn load(
        &mut self,
        parameters: &LoraParameters,
        saved: &Tensors,
        from_tensors: impl Fn(&Tensors) -> PolicyResult<LoraModules>,
    ) -> PolicyResult<()> {
        let halves = saved.values(STEPS).map_err(|e| failed(e.to_string()))?;
        let [high, low] = halves else {
            return Err(failed(format!("`{STEPS}` of the optimiser has {} values", halves.len())));
        };
        self.steps = ((*high as u64) << 24) | *low as u64;
        for (means, suffix) in self.means.iter_mut().zip(MEANS) {
            let ending = format!(".{suffix}");
            let mut tensors = Tensors::default();
            for (name, shape, values) in saved.iter() {
                if let Some(name) = name.strip_suffix(&ending) {
                    tensors.insert(name.to_owned(), shape, values.to_vec());
                }
            }
            let modules = from_tensors(&tensors)?;
            *means = parameters.lay_out(&modules).map_err(|e| failed(e.to_string()))?;
        }
        Ok(())
    }
}

/// Root of the sum of all squares.
fn norm(gradients: &[Tensor<2>]) -> PolicyResult<f64> {
    let mut sums = Vec::with_capacity(gradients.len());
    for gradient in gradients {
        let [rows, cols] = gradient.dims();
        let sum = sum_squares(gradient.clone().reshape([rows * cols])).map_err(device_error)?;
        sums.push(sum);
    }
    if sums.is_empty() {
        return Ok(0.0);
    }
    let sums = pollster::block_on(read_f32(Tensor::cat(sums, 0))).map_err(device_error)?;
    Ok(sums.into_iter().map(f64::from).sum::<f64>().sqrt())
}
