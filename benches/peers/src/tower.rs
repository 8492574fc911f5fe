//! A vision tower of random weights, as llama.cpp reads it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::gguf::{Q4_0_BLOCK, Q8_0_BLOCK, Storage, Tensor, Value};
use crate::shape::{Dims, Shape};
use crate::weights::{self, vector};

/// Pixels of a patch's side.
const PATCH: usize = 14;
/// Patches of the side of what becomes one token.
const MERGED_SIDE: usize = 2;
/// Pixels of that side.
pub const TOKEN_SIDE: usize = PATCH * MERGED_SIDE;

/// Two files, since llama.cpp reads a tower beside a language model only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tower {
    /// The tower (`mmproj`).
    pub weights: PathBuf,
    /// A language model of one layer that takes its tokens, with the words that stand around an image.
    pub taker: PathBuf,
}

impl Tower {
    /// Its files in `folder`.
    pub fn within(folder: &Path) -> Self {
        Self { weights: folder.join("mmproj.gguf"), taker: folder.join("taker.gguf") }
    }

    /// Writes the tower of `seed`; returns its bytes.
    ///
    /// # Errors
    /// [`crate::error::Error::File`] if a file cannot be written.
    pub fn write(&self, shape: Shape, seed: u64) -> Result<u64> {
        let taker = weights::tensors(&taker_dims(shape));
        weights::write_file(&self.taker, &taker_metadata(shape), &taker, seed)?;
        weights::write_file(&self.weights, &metadata(shape), &tensors(shape), seed)
    }
}

fn metadata(shape: Shape) -> Vec<(String, Value)> {
    let dims = shape.vision();
    let int = |key: &str, x: usize| (format!("clip.vision.{key}"), Value::U32(x as u32));
    let floats = |key: &str, x: [f32; 3]| (format!("clip.vision.{key}"), Value::F32s(x.into()));
    vec![
        ("general.architecture".into(), Value::Text("clip".into())),
        ("general.name".into(), Value::Text(shape.name().into())),
        ("clip.has_vision_encoder".into(), Value::Bool(true)),
        ("clip.projector_type".into(), Value::Text("qwen2.5vl_merger".into())),
        ("clip.use_silu".into(), Value::Bool(true)),
        int("image_size", 560),
        int("patch_size", PATCH),
        int("embedding_length", dims.hidden),
        int("feed_forward_length", dims.ffn),
        int("projection_dim", shape.dims().hidden),
        int("block_count", dims.depth),
        int("attention.head_count", dims.heads),
        // Every eighth block sees the whole image.
        int("n_wa_pattern", 8),
        ("clip.vision.attention.layer_norm_epsilon".into(), Value::F32(1e-6)),
        floats("image_mean", [0.481_454_66, 0.457_827_5, 0.408_210_73]),
        floats("image_std", [0.268_629_54, 0.261_302_6, 0.275_777_1]),
    ]
}

fn tensors(shape: Shape) -> Vec<Tensor> {
    let dims = shape.vision();
    let (hidden, ffn, merged) = (dims.hidden, dims.ffn, MERGED_SIDE.pow(2) * dims.hidden);
    // Rows that are not whole blocks are kept in half precision, as llama.cpp's own converter does.
    let matrix = |name: String, rows: usize, cols: usize| {
        let storage = if cols.is_multiple_of(Q8_0_BLOCK) { Storage::Q8_0 } else { Storage::F16 };
        Tensor { name, shape: vec![rows, cols], storage }
    };
    let patches = |name: &str| Tensor {
        name: name.into(),
        shape: vec![hidden, 3, PATCH, PATCH],
        storage: Storage::F16,
    };
    let mut all = vec![patches("v.patch_embd.weight"), patches("v.patch_embd.weight.1")];
    for block in 0..dims.depth {
        let name = |part: &str| format!("v.blk.{block}.{part}");
        all.extend([vector(name("ln1.weight"), hidden), vector(name("ln2.weight"), hidden)]);
        let layers = [
            ("attn_q", hidden, hidden),
            ("attn_k", hidden, hidden),
            ("attn_v", hidden, hidden),
            ("attn_out", hidden, hidden),
            ("ffn_gate", ffn, hidden),
            ("ffn_up", ffn, hidden),
            ("ffn_down", hidden, ffn),
        ];
        for (part, rows, cols) in layers {
            all.push(matrix(name(&format!("{part}.weight")), rows, cols));
            all.push(vector(name(&format!("{part}.bias")), rows));
        }
    }
    let out = shape.dims().hidden;
    all.extend([
        vector("v.post_ln.weight".into(), hidden),
        matrix("mm.0.weight".into(), merged, merged),
        vector("mm.0.bias".into(), merged),
        matrix("mm.2.weight".into(), out, merged),
        vector("mm.2.bias".into(), out),
    ]);
    all
}

/// Of the language model that takes the tokens: what stands around an image, and what its tokenizer looks up.
const WORDS: [(&str, i32); 5] = [
    ("<|endoftext|>", CONTROL),
    ("<|vision_start|>", CONTROL),
    ("<|vision_end|>", CONTROL),
    ("\u{010a}", NORMAL), // a line's end, as byte-level tokenizers write it
    ("a", NORMAL),
];
/// Types of tokens, as llama.cpp counts them.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// As narrow and short as such a model can be, with outputs as wide as those of the tower.
fn taker_dims(shape: Shape) -> Dims {
    Dims { layers: 1, ffn: Q4_0_BLOCK, vocab: WORDS.len(), tied: true, ..shape.dims() }
}

fn taker_metadata(shape: Shape) -> Vec<(String, Value)> {
    let text = |key: &str, x: &str| (key.to_string(), Value::Text(x.to_string()));
    let mut all = weights::metadata(shape.name(), &taker_dims(shape));
    all.extend([
        text("tokenizer.ggml.model", "gpt2"),
        text("tokenizer.ggml.pre", "qwen2"),
        ("tokenizer.ggml.tokens".into(), Value::Texts(WORDS.map(|(word, _)| word.into()).into())),
        ("tokenizer.ggml.token_type".into(), Value::I32s(WORDS.map(|(_, kind)| kind).into())),
        ("tokenizer.ggml.merges".into(), Value::Texts(vec!["a a".into()])),
        ("tokenizer.ggml.eos_token_id".into(), Value::U32(0)),
    ]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tower_is_as_large_as_its_name_says() {
        for (shape, low, high) in [
            (Shape::Half, 0.12e9, 0.14e9), // 12 blocks of 9.4 million and the merger
            (Shape::Three, 0.62e9, 0.68e9),
            (Shape::Seven, 0.62e9, 0.69e9),
        ] {
            let n: usize = tensors(shape).iter().map(|t| t.shape.iter().product::<usize>()).sum();
            assert!((low..high).contains(&(n as f64)), "{}: {n}", shape.name());
        }
    }

    #[test]
    fn rows_are_whole_blocks_or_halves() {
        for tensor in
            tensors(Shape::Seven).iter().chain(&weights::tensors(&taker_dims(Shape::Seven)))
        {
            let blocks = matches!(tensor.storage, Storage::Q4_0 | Storage::Q8_0);
            assert!(!blocks || tensor.cols().is_multiple_of(Q8_0_BLOCK), "{}", tensor.name);
        }
        let down = tensors(Shape::Seven).into_iter().find(|t| t.name == "v.blk.0.ffn_down.weight");
        assert_eq!(down.unwrap().storage, Storage::F16); // 3420 values a row
    }

    #[test]
    fn both_files_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let tower = Tower::within(folder.path());
        let bytes = tower.write(Shape::Half, 0).unwrap();
        assert_eq!(std::fs::metadata(&tower.weights).unwrap().len(), bytes);
        assert!(std::fs::metadata(&tower.taker).unwrap().len() < bytes / 50);
    }
}
