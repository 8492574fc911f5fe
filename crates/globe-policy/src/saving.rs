//! What training changes, out of the model and into it: weights tensor by tensor, an adapter at once.

use std::borrow::Cow;

use globe_model::{LoraModules, Model, WeightParameters};
use globe_train::checkpoint::{Adapter, AdapterConfig};
use globe_train::{
    Error, NamedShape, PolicyError, PolicyState, Result, StateLayout, StateSink, StateSource,
    Tensors,
};

use crate::adamw::{DeviceAdamW, MEANS, STEPS};
use crate::adapter::{from_peft, to_peft};
use crate::policy::{device_error, failed, model_error};

/// What may go wrong between a model and a file.
enum Failure {
    Model(globe_model::Error),
    Train(Error),
}

impl From<globe_model::Error> for Failure {
    fn from(error: globe_model::Error) -> Self {
        Self::Model(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Train(error)
    }
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        Self::Train(error.into())
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Model(error) => model_error(error).into(),
            Failure::Train(error) => error,
        }
    }
}

/// Gives all weights, then their means of gradients, of squares, and the step count. One tensor of the
/// model is in host memory at a time.
pub(crate) fn save_weights(
    weights: &WeightParameters<'_>,
    adamw: &DeviceAdamW,
    sink: &mut dyn StateSink,
) -> Result<()> {
    let parameters = weights.layout();
    let mean_of = |suffix: &str| -> Vec<NamedShape> {
        let named = |(name, shape): &NamedShape| (mean_name(name, suffix), shape.clone());
        parameters.iter().map(named).collect()
    };
    let mut optimiser: Vec<NamedShape> = MEANS.into_iter().flat_map(mean_of).collect();
    optimiser.push((STEPS.into(), vec![2]));
    sink.begin(StateLayout { parameters, optimiser, adapter: None })?;
    let mut each = |_: &str, _: &[usize], values: Vec<f32>| -> Result<(), Failure> {
        Ok(sink.tensor(&values)?)
    };
    pollster::block_on(weights.read(|_, own| Ok(own), &mut each))?;
    for which in 0..MEANS.len() {
        pollster::block_on(weights.read(|i, _| adamw.mean(which, i), &mut each))?;
    }
    sink.tensor(&adamw.steps())
}

/// Puts saved weights and their means in place of those of the model.
pub(crate) fn load_weights(
    mut weights: WeightParameters<'_>,
    adamw: &mut DeviceAdamW,
    state: &StateSource<'_>,
) -> Result<()> {
    let found =
        |name: &str| -> Result<Cow<'_, [f32]>, Failure> { Ok(state.parameters.read(name)?) };
    weights.load(found)?;
    let steps = state.optimiser.read(STEPS)?;
    let means = (0..weights.count()).map(|i| {
        let laid_out = |suffix: &str| {
            let found = |name: &str| -> Result<Cow<'_, [f32]>, Failure> {
                Ok(state.optimiser.read(&mean_name(name, suffix))?)
            };
            weights.lay_out(i, found)
        };
        let [mean, mean_sq] = MEANS.map(laid_out);
        Ok::<_, Failure>([mean?, mean_sq?])
    });
    Ok(adamw.load(&steps, means)?)
}

/// An adapter with its means.
pub(crate) fn adapter(
    model: &mut Model,
    adamw: &DeviceAdamW,
    config: &AdapterConfig,
) -> Result<PolicyState> {
    let lora = model.lora_parameters();
    let named = |modules: LoraModules| to_peft(config.clone(), modules).tensors();
    let own = pollster::block_on(lora.read(None)).map_err(device_error)?;
    let mut optimiser = Tensors::default();
    for (which, suffix) in MEANS.into_iter().enumerate() {
        let means = (0..lora.shapes().len()).map(|i| adamw.mean(which, i));
        let means = means.collect::<globe_model::Result<Vec<_>>>().map_err(model_error)?;
        let means = pollster::block_on(lora.read(Some(&means))).map_err(device_error)?;
        for (name, shape, values) in named(means).into_entries() {
            optimiser.insert(mean_name(&name, suffix), &shape, values);
        }
    }
    optimiser.insert(STEPS.into(), &[2], adamw.steps().to_vec());
    Ok(PolicyState { parameters: named(own), optimiser, adapter: Some(config.clone()) })
}

/// Puts a saved adapter and its means in place of those of the model.
pub(crate) fn load_adapter(
    model: &mut Model,
    adamw: &mut DeviceAdamW,
    config: &AdapterConfig,
    state: &PolicyState,
) -> Result<()> {
    if let Some(saved) = &state.adapter
        && (saved.r, saved.scaling()) != (config.r, config.scaling())
    {
        let (r, alpha) = (saved.r, saved.lora_alpha);
        return Err(failed(format!("the saved adapter has rank {r} and alpha {alpha}")).into());
    }
    let modules = modules_of(config, &state.parameters)?;
    let mut parameters = model.lora_parameters();
    let mut tensors = parameters.lay_out(&modules).map_err(model_error)?.into_iter();
    let missing = || failed("the saved adapter lacks a module");
    parameters.update(|_, _| tensors.next().ok_or_else(missing))?;
    let laid_out = |suffix: &str| -> Result<_> {
        let ending = format!(".{suffix}");
        let mut tensors = Tensors::default();
        for (name, shape, values) in state.optimiser.iter() {
            if let Some(name) = name.strip_suffix(&ending) {
                tensors.insert(name.to_owned(), shape, values.to_vec());
            }
        }
        let modules = modules_of(config, &tensors)?;
        Ok(parameters.lay_out(&modules).map_err(model_error)?)
    };
    let [means, squares] = MEANS.map(laid_out);
    let all = [means?, squares?];
    adamw.load(state.optimiser.values(STEPS)?, std::iter::once(Ok::<_, Error>(all)))
}

fn mean_name(parameter: &str, suffix: &str) -> String {
    format!("{parameter}.{suffix}")
}

/// The pairs that `tensors` hold by PEFT's names.
fn modules_of(config: &AdapterConfig, tensors: &Tensors) -> Result<LoraModules> {
    Ok(from_peft(Adapter::from_tensors(config.clone(), tensors).map_err(failed)?))
}
