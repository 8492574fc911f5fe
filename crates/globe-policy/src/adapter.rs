//! Adapters in PEFT's names, and fresh ones.

use globe_model::{LoraMatrices, LoraModules, LoraShape, Model};
use globe_rng::philox;
use globe_train::checkpoint::{Adapter, AdapterConfig, LoraLayer};

/// Names the draws of a fresh adapter, apart from those of answers.
const PURPOSE: u32 = 0x4c6f_5241;
/// Where transformers keeps the language model, and where this project does.
const PUBLISHED: &str = "model.language_model.";
const CANONICAL: &str = "model.";

/// Rank and scale of a configuration.
pub(crate) fn shape(config: &AdapterConfig) -> LoraShape {
    LoraShape { rank: config.r, scale: config.scaling() as f32 }
}

/// Pairs for the modules of `model` whose last name is in `targets`: `A` uniform within
/// `1 / sqrt(inputs)`, `B` zero, as PEFT begins (torch's `kaiming_uniform_` with `a = sqrt(5)`).
/// Equal seeds give equal adapters.
pub fn fresh(model: &Model, config: &AdapterConfig, targets: &[String], seed: u64) -> LoraModules {
    let is_target = |module: &str| {
        let last = module.rsplit('.').next().unwrap_or_default();
        targets.iter().any(|target| target == last)
    };
    let modules = model.lora_modules().into_iter().enumerate();
    let modules = modules.filter(|(_, (module, _))| is_target(module));
    let pair = |(i, (module, [n_out, n_in])): (usize, (String, [usize; 2]))| {
        let bound = 1.0 / (n_in as f32).sqrt();
        let a = uniform(config.r * n_in, i as u32, seed).map(|u| (2.0 * u - 1.0) * bound).collect();
        (module, LoraMatrices { a, b: vec![0.0; n_out * config.r], n_in, n_out })
    };
    modules.map(pair).collect()
}

/// Numbers in `[0, 1)`.
fn uniform(n: usize, stream: u32, seed: u64) -> impl Iterator<Item = f32> {
    let key = [seed as u32, (seed >> 32) as u32];
    let quads = (0..n.div_ceil(4) as u32).map(move |quad| philox([quad, stream, PURPOSE, 2], key));
    quads.flatten().map(|word| (word >> 8) as f32 / (1u32 << 24) as f32).take(n)
}

/// An adapter by PEFT's names.
pub fn to_peft(config: AdapterConfig, modules: LoraModules) -> Adapter {
    let name = |module: String| match module.strip_prefix(CANONICAL) {
        Some(rest) => format!("{PUBLISHED}{rest}"),
        None => module,
    };
    let layer = |m: LoraMatrices| LoraLayer { a: m.a, b: m.b, n_in: m.n_in, n_out: m.n_out };
    let layers = modules.into_iter().map(|(module, m)| (name(module), layer(m))).collect();
    Adapter { config, layers }
}

/// Its pairs by the names of the model; both published layouts are known.
pub fn from_peft(adapter: Adapter) -> LoraModules {
    let name = |module: String| match module.strip_prefix(PUBLISHED) {
        Some(rest) => format!("{CANONICAL}{rest}"),
        None => module,
    };
    let pair = |m: LoraLayer| LoraMatrices { a: m.a, b: m.b, n_in: m.n_in, n_out: m.n_out };
    adapter.layers.into_iter().map(|(module, m)| (name(module), pair(m))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_to_peft_and_back() {
        let config: AdapterConfig = AdapterConfig {
            base_model_name_or_path: None,
            r: 1,
            lora_alpha: 2.0,
            use_rslora: false,
            target_modules: "q_proj".into(),
        };
        let pair = LoraMatrices { a: vec![1.0], b: vec![2.0], n_in: 1, n_out: 1 };
        let modules = LoraModules::from([("model.layers.0.self_attn.q_proj".into(), pair)]);
        let adapter = to_peft(config, modules.clone());
        let name = "model.language_model.layers.0.self_attn.q_proj";
        assert_eq!(adapter.layers.keys().collect::<Vec<_>>(), [name]);
        assert_eq!(from_peft(adapter), modules);
    }

    #[test]
    fn draws_depend_on_seed_and_stream() {
        let draw = |stream, seed| uniform(1000, stream, seed).collect::<Vec<_>>();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(2, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        let mean = draw(0, 0).iter().sum::<f32>() / 1000.0;
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
    }
}
