//! Named f32 tensors on the host: what a policy saves and loads, and files of them.

use std::collections::BTreeMap;

use globe_format::{Checkpoint, MemoryFiles, SINGLE_FILE, write_f32_safetensors};

use crate::{Error, Result};

/// Named f32 tensors, row-major, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensors(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Tensors {
    /// Adds or replaces one tensor. `values` must fill `shape`; writing a file checks it.
    pub fn insert(&mut self, name: String, shape: &[usize], values: Vec<f32>) {
        self.0.insert(name, (shape.to_vec(), values));
    }

    /// Names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Name, shape and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.0.iter().map(|(name, (shape, values))| (name.as_str(), &shape[..], &values[..]))
    }

    /// The same, giving the values away.
    pub fn into_entries(self) -> impl Iterator<Item = (String, Vec<usize>, Vec<f32>)> {
        self.0.into_iter().map(|(name, (shape, values))| (name, shape, values))
    }

    /// True without tensors.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Elements of all tensors.
    pub fn n_elements(&self) -> usize {
        self.0.values().map(|(_, values)| values.len()).sum()
    }

    /// Values of `name`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn values(&self, name: &str) -> Result<&[f32]> {
        let found = self.0.get(name).map(|(_, values)| &values[..]);
        found.ok_or_else(|| Error::MissingTensor { name: name.into() })
    }

    /// Shape of `name`, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.0.get(name).map(|(shape, _)| &shape[..])
    }

    /// The bytes of a safetensors file.
    ///
    /// # Errors
    /// If a tensor does not fill its shape.
    pub fn to_bytes(&self, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
        let tensors: Vec<_> = self.iter().collect();
        Ok(write_f32_safetensors(&tensors, metadata)?)
    }

    /// Reads a safetensors file; 16-bit tensors are widened.
    ///
    /// # Errors
    /// If the bytes are no safetensors file or a value is not finite.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let files = MemoryFiles::from_iter([(SINGLE_FILE, bytes)]);
        pollster::block_on(async {
            let file = Checkpoint::open(&files).await?;
            let mut out = Self::default();
            for name in file.names() {
                let shape = file.info(name).map(|info| info.shape.clone()).unwrap_or_default();
                out.insert(name.to_owned(), &shape, file.read_f32(name).await?);
            }
            Ok(out)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_give_back_every_bit() {
        let mut tensors = Tensors::default();
        tensors.insert("b".into(), &[2, 1], vec![1.0 / 3.0, -0.0]);
        tensors.insert("a".into(), &[0], vec![]);
        let bytes = tensors.to_bytes(&BTreeMap::new()).unwrap();
        assert_eq!(Tensors::from_bytes(bytes).unwrap(), tensors);
        assert_eq!((tensors.n_elements(), tensors.shape("b")), (2, Some(&[2, 1][..])));
        assert!(tensors.values("c").unwrap_err().to_string().contains("`c`"));
    }

    #[test]
    fn a_tensor_that_does_not_fill_its_shape_is_refused() {
        let mut tensors = Tensors::default();
        tensors.insert("b".into(), &[3], vec![0.0]);
        assert!(tensors.to_bytes(&BTreeMap::new()).is_err());
        assert!(Tensors::from_bytes(vec![1, 2, 3]).is_err());
    }
}
