//! LoRA adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Disk;
use crate::{Error, Result, Tensors};

/// Name of the configuration file.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Name of the weights file.
pub const ADAPTER_MODEL: &str = "adapter_model.safetensors";

/// What PEFT puts before the path of a module.
const PREFIX: &str = "base_model.model.";

/// What PEFT's fields may hold for us, beside those of [`AdapterConfig`]: anything else would change
/// what the adapter computes.
const PLAIN: &[(&str, &[&str])] = &[
    ("peft_type", &["\"LORA\""]),
    ("bias", &["\"none\""]),
    ("use_dora", &["false"]),
    ("lora_bias", &["false"]),
    ("fan_in_fan_out", &["false"]),
    ("use_qalora", &["false"]),
    ("rank_pattern", &["{}"]),
    ("alpha_pattern", &["{}"]),
    ("modules_to_save", &["null", "[]"]),
    ("layer_replication", &["null"]),
    ("target_parameters", &["null", "[]"]),
    ("trainable_token_indices", &["null"]),
    ("alora_invocation_tokens", &["null"]),
];

/// Shape and scale of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// The model it belongs to: a path or a name.
    pub base_model_name_or_path: Option<String>,
    /// Rank.
    pub r: usize,
    /// Updates are multiplied by `lora_alpha / r`.
    pub lora_alpha: f64,
    /// By `lora_alpha / sqrt(r)` instead.
    #[serde(default)]
    pub use_rslora: bool,
    /// Last parts of the module names, or a pattern.
    pub target_modules: Value,
}

impl AdapterConfig {
    /// The factor of `B A x`.
    pub fn scaling(&self) -> f64 {
        let r = self.r as f64;
        self.lora_alpha / if self.use_rslora { r.sqrt() } else { r }
    }

    /// The file, with the fields PEFT needs to apply it as we do.
    fn to_json(&self) -> Value {
        serde_json::json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base_model_name_or_path,
            "r": self.r,
            "lora_alpha": whole_if_possible(self.lora_alpha),
            "lora_dropout": 0.0,
            "use_rslora": self.use_rslora,
            "target_modules": self.target_modules,
            "bias": "none",
            "fan_in_fan_out": false,
            "use_dora": false,
            "rank_pattern": {},
            "alpha_pattern": {},
            "modules_to_save": null,
            "inference_mode": true,
        })
    }

    /// The bytes of the file.
    pub(crate) fn to_file(&self) -> Vec<u8> {
        format!("{:#}\n", self.to_json()).into_bytes()
    }

    pub(crate) fn from_json(text: &[u8]) -> std::result::Result<Self, String> {
        let fields: Value = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        for (name, allowed) in PLAIN {
            let value = fields.get(name).map(Value::to_string);
            if let Some(value) = value.filter(|v| !allowed.contains(&v.as_str())) {
                return Err(format!("`{name}` is {value}, which globe does not know"));
            }
        }
        let config: Self = serde_json::from_value(fields).map_err(|e| e.to_string())?;
        if config.r == 0 || !config.lora_alpha.is_finite() {
            return Err(format!("r {} and lora_alpha {}", config.r, config.lora_alpha));
        }
        Ok(config)
    }
}

/// PEFT writes 32, not 32.0.
fn whole_if_possible(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { (value as i64).into() } else { value.into() }
}

/// What the header of the file of an adapter says, as PEFT's do.
pub(crate) fn peft_metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}

/// The two matrices of a module.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraLayer {
    /// `[rank, in]`, row-major.
    pub a: Vec<f32>,
    /// `[out, rank]`, row-major.
    pub b: Vec<f32>,
    /// Width of the module's input.
    pub n_in: usize,
    /// Width of the module's output.
    pub n_out: usize,
}

/// An adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Shape and scale.
    pub config: AdapterConfig,
    /// By the path of the module in the base model, such as `model.layers.0.self_attn.q_proj`.
    pub layers: BTreeMap<String, LoraLayer>,
}

impl Adapter {
    /// PEFT's name of `lora_A` or `lora_B` of a module.
    pub fn tensor_name(module: &str, matrix: &str) -> String {
        format!("{PREFIX}{module}.{matrix}.weight")
    }

    /// The tensors by PEFT's names.
    pub fn tensors(&self) -> Tensors {
        let mut out = Tensors::default();
        for (module, layer) in &self.layers {
            let (a, b) = ([self.config.r, layer.n_in], [layer.n_out, self.config.r]);
            out.insert(Self::tensor_name(module, "lora_A"), &a, layer.a.clone());
            out.insert(Self::tensor_name(module, "lora_B"), &b, layer.b.clone());
        }
        out
    }

    /// From tensors by PEFT's names.
    ///
    /// # Errors
    /// A reason if a name is not PEFT's, a matrix has no partner, or a rank is not `config.r`.
    pub fn from_tensors(
        config: AdapterConfig,
        tensors: &Tensors,
    ) -> std::result::Result<Self, String> {
        let r = config.r;
        let mut layers = BTreeMap::new();
        for (name, shape, a) in tensors.iter() {
            let module = name.strip_prefix(PREFIX).ok_or(format!("`{name}` is not PEFT's"))?;
            if let Some(module) = module.strip_suffix(".lora_B.weight") {
                let partner = Self::tensor_name(module, "lora_A");
                tensors.values(&partner).map_err(|_| format!("`{name}` without `{partner}`"))?;
                continue;
            }
            let module = module
                .strip_suffix(".lora_A.weight")
                .ok_or_else(|| format!("`{name}` is neither lora_A nor lora_B"))?;
            let partner = Self::tensor_name(module, "lora_B");
            let b =
                tensors.values(&partner).map_err(|_| format!("`{name}` without `{partner}`"))?;
            let ([ra, n_in], Some([n_out, rb])) = (shape, tensors.shape(&partner)) else {
                return Err(format!("`{name}` or its partner is no matrix"));
            };
            if (*ra, *rb) != (r, r) {
                return Err(format!("`{name}` has rank {ra}, its partner {rb}; the file says {r}"));
            }
            let layer = LoraLayer { a: a.to_vec(), b: b.to_vec(), n_in: *n_in, n_out: *n_out };
            layers.insert(module.to_owned(), layer);
        }
        if layers.is_empty() {
            return Err("no matrices".into());
        }
        Ok(Self { config, layers })
    }

    /// The two files.
    ///
    /// # Errors
    /// If a matrix does not fill its shape.
    pub fn to_files(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        Ok(BTreeMap::from([
            (ADAPTER_CONFIG.to_owned(), self.config.to_file()),
            (ADAPTER_MODEL.to_owned(), self.tensors().to_bytes(&peft_metadata())?),
        ]))
    }

    /// From the two files.
    ///
    /// # Errors
    /// A reason for an adapter that computes something globe does not, such as DoRA.
    pub fn from_files(config: &[u8], model: Vec<u8>) -> std::result::Result<Self, String> {
        let config =
            AdapterConfig::from_json(config).map_err(|e| format!("{ADAPTER_CONFIG}: {e}"))?;
        let tensors = Tensors::from_bytes(model).map_err(|e| format!("{ADAPTER_MODEL}: {e}"))?;
        Self::from_tensors(config, &tensors).map_err(|e| format!("{ADAPTER_MODEL}: {e}"))
    }

    /// Writes an adapter folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, disk: &mut dyn Disk, folder: &Path) -> Result<()> {
        disk.create_dir(folder).map_err(Error::io("cannot make the folder", folder))?;
        for (name, bytes) in self.to_files()? {
            let path = folder.join(name);
            disk.write(&path, &bytes).map_err(Error::io("cannot write", &path))?;
        }
        Ok(())
    }

    /// Reads an adapter folder.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Adapter`] with the reason of [`Adapter::from_files`].
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(Error::io("cannot read the adapter", path))
        };
        let (config, model) = (read(ADAPTER_CONFIG)?, read(ADAPTER_MODEL)?);
        Self::from_files(&config, model)
            .map_err(|reason| Error::Adapter { path: folder.into(), reason })
    }
}
