//! What training needs of an engine besides answers.

use globe_model::{LoraModules, LoraSet, LoraShape, Model};
use globe_ops::{Device, DeviceMemory};

use crate::{Engine, Result};

/// The token that ends a turn of the chat template.
const END_OF_TURN: &str = "<|im_end|>";

impl Engine {
    /// The model, to change its adapters. Nothing is kept from answer to answer afterwards: what was
    /// recorded may no longer hold, and training needs the memory.
    pub fn model_mut(&mut self) -> &mut Model {
        self.kept.close();
        &mut self.model
    }

    /// Where tensors live.
    pub fn device(&self) -> &Device {
        &self.compute.device
    }

    /// Bytes on the device; zeros on the CPU path.
    pub fn memory(&self) -> DeviceMemory {
        self.compute.memory()
    }

    /// Puts an adapter onto the model in place of the one before.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if it belongs to another base.
    pub fn set_lora(&mut self, shape: LoraShape, modules: &LoraModules) -> Result<()> {
        self.kept.clear();
        let mut set = self.model.lora_set(shape, modules, &self.compute)?;
        Ok(self.model.swap_lora(&mut set)?)
    }

    /// An adapter on the device that is not on the model yet.
    ///
    /// # Errors
    /// As [`Engine::set_lora`].
    pub fn lora_set(&self, shape: LoraShape, modules: &LoraModules) -> Result<LoraSet> {
        Ok(self.model.lora_set(shape, modules, &self.compute)?)
    }

    /// Tokens of a known answer with the token that ends it.
    ///
    /// # Errors
    /// [`crate::Error::Text`] if the text cannot be encoded.
    pub fn encode_answer(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer().encode(text)?;
        let end = self.tokenizer().id(END_OF_TURN).ok().filter(|id| self.stop.contains(*id));
        ids.extend(end.or(self.stop.eos.first().copied()));
        Ok(ids)
    }
}
