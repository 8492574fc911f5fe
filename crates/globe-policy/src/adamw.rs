//! AdamW over all adapters of a model, or over all of its weights, on the device.

use globe_model::Error;
use globe_ops::{
    AdamStep, ByteMeans, Device, Tensor, adamw, adamw_8bit, read_f32, sum_squares, tensor_f32,
    zeros,
};
use globe_train::optimiser::{AdamWConfig, StateBits, clip_by_norm};
use globe_train::{PolicyResult, StepOutcome, Tensors};

use crate::policy::{device_error, failed, model_error};

/// What the two means are called, as [`globe_train::optimiser::AdamW`] saves them.
const MEANS: [&str; 2] = ["exp_avg", "exp_avg_sq"];
/// Name of the step count.
const STEPS: &str = "steps";

/// How one parameter is trained.
pub(crate) struct Parameter {
    /// Shape on the device.
    pub(crate) shape: [usize; 2],
    /// 1 where it is trained and 0 where it stays zero; `None`: everywhere.
    pub(crate) mask: Option<Tensor<2>>,
    /// Whether its weights decay.
    pub(crate) decays: bool,
}

/// What a step does to one parameter.
type Update<'a> = dyn FnMut(usize, Tensor<2>) -> globe_model::Result<Tensor<2>> + 'a;

/// Both means of one parameter, laid out like it.
enum Means {
    Floats(Box<[Tensor<2>; 2]>),
    Bytes(Box<ByteMeans>),
}

/// Means per parameter.
pub(crate) struct DeviceAdamW {
    config: AdamWConfig,
    steps: u64,
    parameters: Vec<Parameter>,
    means: Vec<Means>,
    device: Device,
}

impl Means {
    fn zeros(shape: [usize; 2], config: &AdamWConfig, device: &Device) -> Self {
        match config.state_bits {
            StateBits::Eight => {
                Self::Bytes(Box::new(ByteMeans::zeros(shape[0] * shape[1], device)))
            }
            StateBits::ThirtyTwo => {
                Self::Floats(Box::new([zeros(shape, device), zeros(shape, device)]))
            }
        }
    }

    /// One step; the parameter after it.
    fn step(&mut self, parameter: Tensor<2>, gradient: Tensor<2>, step: &AdamStep) -> Changed {
        let shape = parameter.dims();
        let flat = |t: &Tensor<2>| t.clone().reshape([shape[0] * shape[1]]);
        let (values, gradient) = (flat(&parameter), flat(&gradient));
        let parameter = match self {
            Self::Floats(means) => {
                let [mean, mean_sq] = &mut **means;
                let (parameter, m, v) = adamw(values, gradient, flat(mean), flat(mean_sq), step)?;
                (*mean, *mean_sq) = (m.reshape(shape), v.reshape(shape));
                parameter
            }
            Self::Bytes(means) => {
                let (parameter, packed) = adamw_8bit(values, gradient, (**means).clone(), step)?;
                **means = packed;
                parameter
            }
        };
        Ok(parameter.reshape(shape))
    }

    /// The mean of gradients or, for 1, of their squares, as f32.
    fn unpacked(&self, which: usize, shape: [usize; 2], device: &Device) -> Changed {
        match self {
            Self::Floats(means) => Ok(means[which].clone()),
            Self::Bytes(means) => {
                let [mean, mean_sq] = pollster::block_on(means.unpack())?;
                let values = if which == 0 { mean } else { mean_sq };
                Ok(tensor_f32(values, shape, device))
            }
        }
    }
}

/// A tensor of the model or one that belongs to it.
type Changed = globe_model::Result<Tensor<2>>;

impl DeviceAdamW {
    /// No steps taken, all means zero.
    pub(crate) fn new(config: AdamWConfig, parameters: Vec<Parameter>, device: &Device) -> Self {
        let means = parameters.iter().map(|p| Means::zeros(p.shape, &config, device)).collect();
        Self { config, steps: 0, parameters, means, device: device.clone() }
    }

    /// One step along `gradients`, scaled down to `max_grad_norm` (0: not). `apply` hands every
    /// parameter to the update.
    pub(crate) fn step(
        &mut self,
        gradients: Vec<Tensor<2>>,
        lr: f64,
        max_grad_norm: f64,
        apply: impl FnOnce(&mut Update<'_>) -> globe_model::Result<()>,
    ) -> PolicyResult<StepOutcome> {
        // Rows of one module and columns of another meet in zeros that are no parameters.
        let masked = |(gradient, parameter): (Tensor<2>, &Parameter)| match &parameter.mask {
            Some(mask) => gradient * mask.clone(),
            None => gradient,
        };
        let gradients: Vec<_> = gradients.into_iter().zip(&self.parameters).map(masked).collect();
        let grad_norm = norm(&gradients)?;
        if !grad_norm.is_finite() {
            return Ok(StepOutcome { grad_norm, applied: false });
        }
        self.steps += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay, .. } = self.config;
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
        let (parameters, means) = (&self.parameters, &mut self.means);
        let mut update = |i: usize, parameter: Tensor<2>| {
            let missing = || Error::Training { reason: "a gradient is missing".into() };
            let gradient = gradients.next().ok_or_else(missing)?;
            let weight_decay = if parameters[i].decays { step.weight_decay } else { 0.0 };
            means[i].step(parameter, gradient, &AdamStep { weight_decay, ..step })
        };
        apply(&mut update).map_err(model_error)?;
        Ok(StepOutcome { grad_norm, applied: true })
    }

    /// The means as `NAME.exp_avg` and `NAME.exp_avg_sq`, f32 however they are kept, and the step
    /// count. `read` gives tensors that are laid out like the parameters their names; it asks for them
    /// by index.
    pub(crate) fn save(
        &self,
        read: impl Fn(&mut dyn FnMut(usize) -> Changed) -> PolicyResult<Tensors>,
    ) -> PolicyResult<Tensors> {
        let mut out = Tensors::default();
        for (which, suffix) in MEANS.into_iter().enumerate() {
            let mut mean =
                |i: usize| self.means[i].unpacked(which, self.parameters[i].shape, &self.device);
            for (name, shape, values) in read(&mut mean)?.into_entries() {
                out.insert(format!("{name}.{suffix}"), &shape, values);
            }
        }
        // Two halves below 2^24 are exact in f32 up to 2^48 steps.
        let halves = vec![(self.steps >> 24) as f32, (self.steps & 0xFF_FFFF) as f32];
        out.insert(STEPS.into(), &[2], halves);
        Ok(out)
    }

    /// Takes over what [`DeviceAdamW::save`] gave. `lay_out` makes tensors laid out like the
    /// parameters of those that have this ending after a dot.
    pub(crate) fn load(
        &mut self,
        saved: &Tensors,
        lay_out: impl Fn(&str) -> PolicyResult<Vec<Tensor<2>>>,
    ) -> PolicyResult<()> {
        let halves = saved.values(STEPS).map_err(|e| failed(e.to_string()))?;
        let [high, low] = halves else {
            return Err(failed(format!("`{STEPS}` of the optimiser has {} values", halves.len())));
        };
        self.steps = ((*high as u64) << 24) | *low as u64;
        self.means.clear(); // two copies may not fit
        let [means, squares] = MEANS.map(&lay_out);
        for (mean, mean_sq) in means?.into_iter().zip(squares?) {
            self.means.push(match self.config.state_bits {
                StateBits::ThirtyTwo => Means::Floats(Box::new([mean, mean_sq])),
                StateBits::Eight => {
                    let [mean, mean_sq] =
                        [mean, mean_sq].map(|values| pollster::block_on(read_f32(values)));
                    let (mean, mean_sq) =
                        (mean.map_err(device_error)?, mean_sq.map_err(device_error)?);
                    Means::Bytes(Box::new(ByteMeans::pack([&mean, &mean_sq], &self.device)))
                }
            });
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
