//! AdamW over all adapters of a model, or over all of its weights, on the device.

use globe_model::Error;
use globe_ops::{
    AdamStep, ByteMeans, Device, Tensor, adamw, adamw_8bit, read_f32, sum_squares, tensor_f32,
    zeros,
};
use globe_train::optimiser::{AdamWConfig, StateBits, clip_by_norm};
use globe_train::{PolicyError, PolicyResult, StepOutcome};

use crate::policy::{device_error, failed, model_error};

/// What the two means are called, as [`globe_train::optimiser::AdamW`] saves them.
pub(crate) const MEANS: [&str; 2] = ["exp_avg", "exp_avg_sq"];
/// Name of the step count.
pub(crate) const STEPS: &str = "steps";

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

    fn of(
        mean: Tensor<2>,
        mean_sq: Tensor<2>,
        config: &AdamWConfig,
        device: &Device,
    ) -> PolicyResult<Self> {
        if config.state_bits == StateBits::ThirtyTwo {
            return Ok(Self::Floats(Box::new([mean, mean_sq])));
        }
        let [mean, mean_sq] = [mean, mean_sq].map(|values| pollster::block_on(read_f32(values)));
        let (mean, mean_sq) = (mean.map_err(device_error)?, mean_sq.map_err(device_error)?);
        Ok(Self::Bytes(Box::new(ByteMeans::pack([&mean, &mean_sq], device))))
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
pub(crate) type Changed = globe_model::Result<Tensor<2>>;

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

    /// The mean of the gradients of parameter `i` or, for `which` 1, of their squares: f32 however it
    /// is kept, and laid out like the parameter.
    pub(crate) fn mean(&self, which: usize, i: usize) -> Changed {
        self.means[i].unpacked(which, self.parameters[i].shape, &self.device)
    }

    /// The step count as it is saved: two halves below 2^24, exact in f32 up to 2^48 steps.
    pub(crate) fn steps(&self) -> [f32; 2] {
        [(self.steps >> 24) as f32, (self.steps & 0xFF_FFFF) as f32]
    }

    /// Takes over a saved state: the step count, and means as [`DeviceAdamW::mean`] gave them. They
    /// come some at a time, each before the next is asked for.
    pub(crate) fn load<E: From<PolicyError>>(
        &mut self,
        steps: &[f32],
        means: impl Iterator<Item = Result<[Vec<Tensor<2>>; 2], E>>,
    ) -> Result<(), E> {
        let [high, low] = steps else {
            let reason = format!("`{STEPS}` of the optimiser has {} values", steps.len());
            return Err(failed(reason).into());
        };
        self.steps = ((*high as u64) << 24) | *low as u64;
        self.means.clear(); // two copies may not fit
        for some in means {
            let [means, squares] = some?;
            for (mean, mean_sq) in means.into_iter().zip(squares) {
                let means = Means::of(mean, mean_sq, &self.config, &self.device)?;
                self.means.push(means);
            }
        }
        if self.means.len() == self.parameters.len() {
            return Ok(());
        }
        let (got, expected) = (self.means.len(), self.parameters.len());
        Err(failed(format!("the optimiser has means of {got} tensors instead of {expected}"))
            .into())
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
