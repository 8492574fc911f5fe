//! What training changes of the model: adapters beside its matrices, or its own tensors.

use std::collections::{BTreeMap, BTreeSet};

use globe_format::packed::TensorSpec;
use globe_ops::Compute;

use super::{Qwen2_5Vl, VisionBlock};
use crate::gradients::{BlockSums, Gradients, LinearSums};
use crate::layers::Linear;
use crate::lora::{Lora, module_name};
use crate::weight_parameters::{TensorMut, WeightParameter};
use crate::{
    AdapterPlan, Config, Error, LoraModules, LoraParameters, LoraSet, LoraShape, Result,
    WeightParameters,
};

/// Fused matrices of a layer that can have an adapter.
const MATRICES: [&str; 4] = ["self_attn.qkv", "self_attn.o_proj", "mlp.gate_up", "mlp.down_proj"];
/// Tensors of a layer of the language model, and of a block of the tower.
const PER_LAYER: usize = 7;
const PER_BLOCK: usize = 10;

/// Indices into [`Qwen2_5Vl::packed_specs`].
pub(super) struct Places {
    /// The first tensor of the merger; patches come first, then blocks.
    pub(super) merger: usize,
    /// The embedding table; layers follow.
    pub(super) table: usize,
    /// The last norm.
    pub(super) norm: usize,
    /// The head, or the table if they are one.
    pub(super) head: usize,
}

impl Qwen2_5Vl {
    pub(super) fn places(&self) -> Places {
        Places::new(&self.config)
    }

    /// Sums of a layer of the language model.
    pub(super) fn layer_sums<'a>(&self, sum: &'a mut Gradients, layer: usize) -> BlockSums<'a> {
        let first = self.places().table + 1 + PER_LAYER * layer;
        let (pairs, weights) = sum.at::<4, PER_LAYER>(MATRICES.len() * layer, first);
        let [qkv_pair, out_pair, gate_up_pair, down_pair] = pairs;
        let [first_norm, qkv, bias, out, second_norm, gate_up, down] = weights;
        BlockSums {
            first_norm,
            second_norm,
            qkv: LinearSums { pair: qkv_pair, weight: qkv, bias },
            out: LinearSums { pair: out_pair, weight: out, bias: None },
            gate_up: LinearSums { pair: gate_up_pair, weight: gate_up, bias: None },
            down: LinearSums { pair: down_pair, weight: down, bias: None },
        }
    }

    /// Sums of a block of the tower.
    pub(super) fn block_sums(sum: &mut Gradients, block: usize) -> BlockSums<'_> {
        let (_, weights) = sum.at::<0, PER_BLOCK>(0, 1 + PER_BLOCK * block);
        let [first_norm, second_norm, qkv, qkv_bias, out, out_bias, gate_up, up_bias, down, last] =
            weights;
        let linear = |weight, bias| LinearSums { pair: None, weight, bias };
        BlockSums {
            first_norm,
            second_norm,
            qkv: linear(qkv, qkv_bias),
            out: linear(out, out_bias),
            gate_up: linear(gate_up, up_bias),
            down: linear(down, last),
        }
    }

    /// All tensors of the model, or those of the language model alone, as what training changes.
    pub fn weight_parameters(&mut self, vision: bool) -> WeightParameters<'_> {
        let (config, device) = (self.config.clone(), self.device.clone());
        let (places, shapes) = (Places::new(&config), Self::tensor_shapes(&config));
        let shapes: BTreeMap<String, Vec<usize>> = shapes.into_iter().collect();
        let mut tensors: Vec<Option<TensorMut>> = Vec::new();
        match (vision, &mut self.visual) {
            (true, Some(visual)) => {
                tensors.extend(visual.patch_embed.tensors_mut().map(Some));
                tensors.extend(visual.blocks.iter_mut().flat_map(block_tensors).map(Some));
                tensors.push(Some(visual.merger.ln_q.tensor_mut()));
                let mlp = visual.merger.mlp.iter_mut();
                tensors.extend(mlp.flat_map(Linear::tensors_mut).map(Some));
            }
            _ => tensors.resize_with(places.table, || None),
        }
        let model = &mut self.model;
        tensors.push(Some(model.embed_tokens.tensor_mut()));
        for layer in &mut model.layers {
            tensors.push(Some(layer.input_layernorm.tensor_mut()));
            tensors.extend(layer.qkv.tensors_mut().chain(layer.o_proj.tensors_mut()).map(Some));
            tensors.push(Some(layer.post_attention_layernorm.tensor_mut()));
            let mlp = &mut layer.mlp;
            let mlp = mlp.gate_up.tensors_mut().chain(mlp.down_proj.tensors_mut());
            tensors.extend(mlp.map(Some));
        }
        tensors.push(Some(model.norm.tensor_mut()));
        let mut tied = None;
        match config.tie_word_embeddings {
            true => tied = Some((places.table, self.lm_head.weight_mut())),
            false => tensors.extend(self.lm_head.tensors_mut().map(Some)),
        }
        let specs = Self::packed_specs(&config).into_iter().enumerate();
        let parameter = |((index, spec), tensor): ((usize, TensorSpec), Option<_>)| {
            let shape = |name: &str| shapes.get(name).cloned().unwrap_or_default();
            let shapes = spec.sources.iter().map(|source| shape(&source.name)).collect();
            Some(WeightParameter { index, spec, shapes, tensor: tensor? })
        };
        let parameters = specs.zip(tensors).filter_map(parameter).collect();
        WeightParameters { parameters, tied, device }
    }

    /// Zero gradients of all tensors, or of those of the language model alone.
    ///
    /// # Errors
    /// [`Error::Ops`] unless the model was loaded as [`crate::Precision::Trained`].
    pub fn weight_gradients(&mut self, vision: bool) -> Result<Gradients> {
        let n = Self::packed_specs(&self.config).len();
        let mut weights = Vec::new();
        weights.resize_with(n, || None);
        for (index, gradient) in self.weight_parameters(vision).gradients()? {
            weights[index] = Some(gradient);
        }
        Ok(Gradients { pairs: Vec::new(), weights })
    }

    /// Pairs for every module in `found`.
    ///
    /// # Errors
    /// [`Error::Adapter`] if a module has another size, [`Error::NoModule`] if there is none.
    pub fn lora_set(
        &self,
        shape: LoraShape,
        found: &LoraModules,
        compute: &Compute,
    ) -> Result<LoraSet> {
        let specs = Self::packed_specs(&self.config);
        let mut unknown: BTreeSet<&String> = found.keys().collect();
        let mut pairs = Vec::new();
        for spec in adapted(&specs) {
            for source in &spec.sources {
                unknown.retain(|module| *module != module_name(&source.name));
            }
            pairs.push(Lora::new(spec, shape, found, compute)?);
        }
        match unknown.first() {
            Some(module) => Err(Error::NoModule { module: module.to_string() }),
            None => Ok(LoraSet(pairs)),
        }
    }

    /// Puts the pairs onto the model and takes those that were there.
    ///
    /// # Errors
    /// [`Error::Training`] for the pairs of another model.
    pub fn swap_lora(&mut self, set: &mut LoraSet) -> Result<()> {
        let n = self.matrices_mut().count();
        if set.0.len() != n {
            let reason = format!("{} pairs for {n} matrices", set.0.len());
            return Err(Error::Training { reason });
        }
        for (linear, pair) in self.matrices_mut().zip(&mut set.0) {
            std::mem::swap(&mut linear.lora, pair);
        }
        Ok(())
    }

    /// Modules that can have an adapter, with outputs and inputs.
    pub fn lora_modules(config: &Config) -> Vec<(String, [usize; 2])> {
        let specs = Self::packed_specs(config);
        let sources = adapted(&specs).flat_map(|spec| &spec.sources);
        sources.map(|s| (module_name(&s.name).to_owned(), [s.rows, s.cols])).collect()
    }

    /// What an adapter of this rank takes that stands beside the modules for which `is_adapted`.
    pub fn adapter_plan(
        config: &Config,
        rank: usize,
        is_adapted: impl Fn(&str) -> bool,
    ) -> AdapterPlan {
        AdapterPlan::new(adapted(&Self::packed_specs(config)), rank, is_adapted)
    }

    /// Switches all pairs on or off; without them the model is the one it was before training.
    pub fn switch_lora(&mut self, on: bool) {
        self.lora_parameters().0.iter_mut().for_each(|pair| pair.on = on);
    }

    /// The matrices of the language model that can have an adapter, as [`adapted`] orders them.
    fn matrices_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.model.layers.iter_mut().flat_map(|layer| {
            let mlp = &mut layer.mlp;
            [&mut layer.qkv, &mut layer.o_proj, &mut mlp.gate_up, &mut mlp.down_proj]
        })
    }

    /// Zero gradients of all adapters.
    pub fn lora_gradients(&self) -> Gradients {
        let pairs = self.model.layers.iter().flat_map(|layer| {
            let mlp = &layer.mlp;
            [&layer.qkv, &layer.o_proj, &mlp.gate_up, &mlp.down_proj].map(|l| l.lora.as_ref())
        });
        Gradients::of_pairs(pairs)
    }

    /// The adapters.
    pub fn lora_parameters(&mut self) -> LoraParameters<'_> {
        LoraParameters(self.matrices_mut().filter_map(|linear| linear.lora.as_mut()).collect())
    }
}

impl Places {
    fn new(config: &Config) -> Self {
        let merger = 1 + PER_BLOCK * config.vision.depth;
        let table = merger + 5;
        let norm = table + 1 + PER_LAYER * config.text.num_hidden_layers;
        let head = if config.tie_word_embeddings { table } else { norm + 1 };
        Self { merger, table, norm, head }
    }
}

/// Tensors of a block of the tower.
fn block_tensors(block: &mut VisionBlock) -> impl Iterator<Item = TensorMut<'_>> {
    let norms = [block.norm1.tensor_mut(), block.norm2.tensor_mut()].into_iter();
    let attn = block.attn.qkv.tensors_mut().chain(block.attn.proj.tensors_mut());
    let mlp = block.mlp.gate_up.tensors_mut().chain(block.mlp.down_proj.tensors_mut());
    norms.chain(attn).chain(mlp)
}

/// The fused matrices that can have an adapter: four of each layer.
fn adapted(specs: &[TensorSpec]) -> impl Iterator<Item = &TensorSpec> {
    specs.iter().filter(|spec| {
        let name = module_name(&spec.name);
        name.starts_with("model.layers.") && MATRICES.iter().any(|m| name.ends_with(m))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_specs() {
        for tied in [true, false] {
            let json = format!(
                r#"{{"model_type": "qwen2_5_vl", "vocab_size": 300, "hidden_size": 64,
                "intermediate_size": 100, "num_hidden_layers": 3, "num_attention_heads": 4,
                "num_key_value_heads": 2, "tie_word_embeddings": {tied}, "image_token_id": 7,
                "rope_scaling": {{ "type": "mrope", "mrope_section": [2, 3, 3] }},
                "vision_config": {{ "depth": 2, "hidden_size": 32, "num_heads": 2,
                "intermediate_size": 42, "out_hidden_size": 64 }} }}"#
            );
            let config = Config::parse(json.as_bytes()).unwrap();
            let (places, specs) = (Places::new(&config), Qwen2_5Vl::packed_specs(&config));
            let name = |i: usize| specs[i].name.as_str();
            assert_eq!(name(places.merger), "visual.merger.ln_q.weight");
            assert_eq!(name(places.table), "model.embed_tokens.weight");
            assert_eq!(name(places.norm), "model.norm.weight");
            let head = if tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
            assert_eq!(name(places.head), head);
            assert_eq!(name(1 + PER_BLOCK), "visual.blocks.1.norm1.weight");
            let layer = places.table + 1 + 2 * PER_LAYER;
            assert_eq!(name(layer), "model.layers.2.input_layernorm.weight");
            assert_eq!(name(layer + 6), "model.layers.2.mlp.down_proj.weight");
        }
    }
}
