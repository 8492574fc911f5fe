//! What a policy saves and loads, tensor by tensor: all weights of a large model and both means of its
//! optimiser are more than the memory of a host.

use std::borrow::Cow;

use globe_format::{Checkpoint, Mapped};

use crate::{Error, Result, Tensors, checkpoint::AdapterConfig};

/// Name and shape of a tensor.
pub type NamedShape = (String, Vec<usize>);

/// What a policy is going to save.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateLayout {
    /// Trained weights in f32, in the order in which they come. With an adapter, by PEFT's names.
    pub parameters: Vec<NamedShape>,
    /// State of the optimiser, which comes after them, in its order.
    pub optimiser: Vec<NamedShape>,
    /// Set if the parameters are an adapter.
    pub adapter: Option<AdapterConfig>,
}

/// Takes what a policy saves.
pub trait StateSink {
    /// What will come. Called once, before any tensor.
    ///
    /// # Errors
    /// Such as for a full disk; saving then ends.
    fn begin(&mut self, layout: StateLayout) -> Result<()>;

    /// The values of the next tensor, row-major.
    ///
    /// # Errors
    /// As [`StateSink::begin`], and [`Error::PolicyContract`] for one that does not fill its shape.
    fn tensor(&mut self, values: &[f32]) -> Result<()>;
}

/// Tensors by name, on the host or in a file.
pub trait TensorSource {
    /// All names.
    fn names(&self) -> Vec<&str>;

    /// The shape of a tensor, if it is there.
    fn shape(&self, name: &str) -> Option<&[usize]>;

    /// The values of a tensor, row-major.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], and those of reading a file.
    fn read(&self, name: &str) -> Result<Cow<'_, [f32]>>;
}

/// What a policy loads.
#[derive(Clone, Copy)]
pub struct StateSource<'a> {
    /// Trained weights.
    pub parameters: &'a dyn TensorSource,
    /// State of the optimiser.
    pub optimiser: &'a dyn TensorSource,
    /// Set if the parameters are an adapter.
    pub adapter: Option<&'a AdapterConfig>,
}

impl StateSource<'_> {
    /// All of it in host memory: for what is small.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn collect(&self) -> Result<PolicyState> {
        let [parameters, optimiser] = [self.parameters, self.optimiser].map(|source| {
            let mut out = Tensors::default();
            for name in source.names() {
                let shape = source.shape(name).unwrap_or_default();
                out.insert(name.to_owned(), shape, source.read(name)?.into_owned());
            }
            Ok::<_, Error>(out)
        });
        let adapter = self.adapter.cloned();
        Ok(PolicyState { parameters: parameters?, optimiser: optimiser?, adapter })
    }
}

impl TensorSource for Tensors {
    fn names(&self) -> Vec<&str> {
        Tensors::names(self).collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        Tensors::shape(self, name)
    }

    fn read(&self, name: &str) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Borrowed(self.values(name)?))
    }
}

impl TensorSource for Checkpoint<Mapped> {
    fn names(&self) -> Vec<&str> {
        Checkpoint::names(self).collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.info(name).map(|info| &info.shape[..])
    }

    fn read(&self, name: &str) -> Result<Cow<'_, [f32]>> {
        if self.info(name).is_none() {
            return Err(Error::MissingTensor { name: name.into() });
        }
        Ok(Cow::Owned(pollster::block_on(self.read_f32(name))?))
    }
}

/// Everything that training changes, in host memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyState {
    /// Trained weights in f32. With an adapter, by PEFT's names.
    pub parameters: Tensors,
    /// State of the optimiser.
    pub optimiser: Tensors,
    /// Set if the parameters are an adapter.
    pub adapter: Option<AdapterConfig>,
}

impl PolicyState {
    /// To be loaded from.
    pub fn source(&self) -> StateSource<'_> {
        let adapter = self.adapter.as_ref();
        StateSource { parameters: &self.parameters, optimiser: &self.optimiser, adapter }
    }

    /// Gives all tensors in the order of their names.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn save_to(&self, sink: &mut dyn StateSink) -> Result<()> {
        let shapes = |tensors: &Tensors| {
            tensors.iter().map(|(name, shape, _)| (name.to_owned(), shape.to_vec())).collect()
        };
        sink.begin(StateLayout {
            parameters: shapes(&self.parameters),
            optimiser: shapes(&self.optimiser),
            adapter: self.adapter.clone(),
        })?;
        let mut all = self.parameters.iter().chain(self.optimiser.iter());
        all.try_for_each(|(_, _, values)| sink.tensor(values))
    }
}

/// A sink that keeps everything in host memory.
#[derive(Default)]
pub(crate) struct Collector {
    state: PolicyState,
    /// What is still to come, and whether it is a parameter; the next at the end.
    coming: Vec<(NamedShape, bool)>,
}

impl Collector {
    /// What came.
    ///
    /// # Errors
    /// [`Error::PolicyContract`] if something did not.
    pub fn finish(self) -> Result<PolicyState> {
        match self.coming.last() {
            None => Ok(self.state),
            Some(((name, _), _)) => Err(missing(name)),
        }
    }
}

impl StateSink for Collector {
    fn begin(&mut self, layout: StateLayout) -> Result<()> {
        let parameters = layout.parameters.into_iter().map(|named| (named, true));
        let optimiser = layout.optimiser.into_iter().map(|named| (named, false));
        self.coming = parameters.chain(optimiser).collect();
        self.coming.reverse();
        self.state.adapter = layout.adapter;
        Ok(())
    }

    fn tensor(&mut self, values: &[f32]) -> Result<()> {
        let ((name, shape), is_parameter) = self.coming.pop().ok_or_else(too_many)?;
        check_size(&name, &shape, values.len())?;
        let into =
            if is_parameter { &mut self.state.parameters } else { &mut self.state.optimiser };
        into.insert(name, &shape, values.to_vec());
        Ok(())
    }
}

/// A tensor that was announced and did not come.
pub(crate) fn missing(name: &str) -> Error {
    Error::PolicyContract { call: "save_to", reason: format!("`{name}` did not come") }
}

/// A tensor that was not announced.
pub(crate) fn too_many() -> Error {
    Error::PolicyContract { call: "save_to", reason: "more tensors than announced".into() }
}

/// Errors unless so many values fill the shape.
pub(crate) fn check_size(name: &str, shape: &[usize], n: usize) -> Result<()> {
    if shape.iter().product::<usize>() == n {
        return Ok(());
    }
    let reason = format!("`{name}` of shape {shape:?} came with {n} values");
    Err(Error::PolicyContract { call: "save_to", reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> PolicyState {
        let mut state = PolicyState::default();
        state.parameters.insert("w".into(), &[2], vec![1.0, 2.0]);
        state.optimiser.insert("steps".into(), &[1], vec![3.0]);
        state
    }

    #[test]
    fn what_is_given_is_kept() {
        let mut sink = Collector::default();
        state().save_to(&mut sink).unwrap();
        assert_eq!(sink.finish().unwrap(), state());
        assert_eq!(state().source().collect().unwrap(), state());
    }

    #[test]
    fn a_policy_that_breaks_its_word_is_told() {
        let layout = StateLayout { parameters: vec![("w".into(), vec![2])], ..Default::default() };
        let begun = || {
            let mut sink = Collector::default();
            sink.begin(layout.clone()).unwrap();
            sink
        };
        assert!(begun().finish().unwrap_err().to_string().contains("`w` did not come"));
        assert!(begun().tensor(&[1.0]).unwrap_err().to_string().contains("1 values"));
        let mut sink = begun();
        sink.tensor(&[1.0, 2.0]).unwrap();
        assert!(sink.tensor(&[1.0]).unwrap_err().to_string().contains("more tensors"));
    }
}
