//! Qwen2.5-VL as llama.cpp stores it: the language model in one file, the vision tower in another.
//!
//! Names and cuts follow `Qwen2VLModel` and `Qwen2VLVisionModel` of `convert_hf_to_gguf.py`: query,
//! key and value of the tower are apart, and the two frames of its patch embedding as well.

use std::ops::Range;

use super::{Gguf, GgufValue, small_files};
use crate::{
    error::{Error, Result},
    names,
    source::Source,
    tensors::SourceTensors,
};

/// `general.architecture` of the language model.
const TEXT_ARCHITECTURE: &str = "qwen2vl";

/// Kind of the tower; Qwen2-VL has another, with other layers.
const PROJECTOR: &str = "qwen2.5vl_merger";

/// Parts of a text layer: Hugging Face's name and llama.cpp's.
const TEXT_PARTS: [(&str, &str); 9] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// Parts of a block of the tower.
const VISION_PARTS: [(&str, &str); 6] = [
    ("norm1", "ln1"),
    ("norm2", "ln2"),
    ("attn.proj", "attn_out"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// Tensors outside of layers and blocks.
const SINGLE: [(&str, &str); 8] = [
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
    ("visual.merger.ln_q.weight", "v.post_ln.weight"),
    ("visual.merger.mlp.0.weight", "mm.0.weight"),
    ("visual.merger.mlp.0.bias", "mm.0.bias"),
    ("visual.merger.mlp.2.weight", "mm.2.weight"),
    ("visual.merger.mlp.2.bias", "mm.2.bias"),
];

const PATCH_EMBED: &str = "visual.patch_embed.proj.weight";
const FRAMES: [&str; 2] = ["v.patch_embd.weight", "v.patch_embd.weight.1"];

/// Where a tensor with a Hugging Face name comes from.
enum Place {
    /// It is stored as it is.
    One(String),
    /// Rows of the tower's query, key and value, one after the other.
    Stacked([String; 3]),
    /// `[out, channels, frames, side, side]`, each frame stored apart.
    Frames,
}

/// Both files of a model, its tensors under the names of the Hugging Face checkpoint.
#[derive(Debug)]
pub struct GgufModel<S> {
    pub(super) text: Gguf<S>,
    pub(super) vision: Gguf<S>,
}

impl<S: Source> GgufModel<S> {
    /// Checks that the files are the two halves of a Qwen2.5-VL model.
    ///
    /// # Errors
    /// [`Error::Gguf`] naming the file and the field.
    pub fn new(text: Gguf<S>, vision: Gguf<S>) -> Result<Self> {
        expect(&text, "general.architecture", TEXT_ARCHITECTURE)?;
        expect(&vision, "general.architecture", "clip")?;
        let key = "clip.projector_type";
        let key =
            if vision.metadata.contains_key(key) { key } else { "clip.vision.projector_type" };
        expect(&vision, key, PROJECTOR)?;
        for file in [&text, &vision] {
            if file.size_of("split.count")?.is_some_and(|n| n > 1) {
                let reason = "one of several files; join them with `llama-gguf-split --merge`";
                return Err(file.fail("split.count", reason));
            }
        }
        Ok(Self { text, vision })
    }

    /// The small files of a model folder, made from the metadata: configuration, tokenizer, chat
    /// template and preprocessing.
    ///
    /// # Errors
    /// [`Error::Gguf`] naming the file and the field.
    pub fn small_files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        small_files::all(self)
    }

    /// The file that holds a tensor, by the start of llama.cpp's name.
    fn file_of(&self, name: &str) -> &Gguf<S> {
        match name.starts_with("v.") || name.starts_with("mm.") {
            true => &self.vision,
            false => &self.text,
        }
    }

    fn stored_shape(&self, name: &str) -> Option<&[usize]> {
        self.file_of(name).tensor(name).map(|(_, shape)| shape)
    }
}

fn expect<S: Source>(file: &Gguf<S>, key: &str, expected: &str) -> Result<()> {
    match file.value(key)? {
        GgufValue::Text(found) if found == expected => Ok(()),
        GgufValue::Text(found) => {
            Err(file.fail(key, format!("`{found}`, expected `{expected}` of Qwen2.5-VL")))
        }
        other => Err(file.fail(key, format!("{other:?}, expected `{expected}`"))),
    }
}

/// Maps a Hugging Face name.
fn place(name: &str) -> Option<Place> {
    if name == PATCH_EMBED {
        return Some(Place::Frames);
    }
    if let Some((_, stored)) = SINGLE.iter().find(|(hugging_face, _)| *hugging_face == name) {
        return Some(Place::One((*stored).into()));
    }
    let (rest, prefix, parts) = match name.strip_prefix("model.layers.") {
        Some(rest) => (rest, "blk", TEXT_PARTS.as_slice()),
        None => (name.strip_prefix("visual.blocks.")?, "v.blk", VISION_PARTS.as_slice()),
    };
    let (idx, part) = rest.split_once('.')?;
    let (part, kind) = part.rsplit_once('.')?;
    if prefix == "v.blk" && part == "attn.qkv" {
        return Some(Place::Stacked(
            ["q", "k", "v"].map(|which| format!("v.blk.{idx}.attn_{which}.{kind}")),
        ));
    }
    let (_, stored) = parts.iter().find(|(hugging_face, _)| *hugging_face == part)?;
    Some(Place::One(format!("{prefix}.{idx}.{stored}.{kind}")))
}

/// The Hugging Face name of a stored tensor; parts of one tensor have the same.
fn hugging_face_name(stored: &str) -> Option<String> {
    if FRAMES.contains(&stored) {
        return Some(PATCH_EMBED.into());
    }
    if let Some((name, _)) = SINGLE.iter().find(|(_, single)| *single == stored) {
        return Some((*name).into());
    }
    let (rest, prefix, parts) = match stored.strip_prefix("v.blk.") {
        Some(rest) => (rest, "visual.blocks", VISION_PARTS.as_slice()),
        None => (stored.strip_prefix("blk.")?, "model.layers", TEXT_PARTS.as_slice()),
    };
    let (idx, part) = rest.split_once('.')?;
    let (part, kind) = part.rsplit_once('.')?;
    if prefix == "visual.blocks" && matches!(part, "attn_q" | "attn_k" | "attn_v") {
        return Some(format!("{prefix}.{idx}.attn.qkv.{kind}"));
    }
    let (name, _) = parts.iter().find(|(_, stored)| *stored == part)?;
    Some(format!("{prefix}.{idx}.{name}.{kind}"))
}

impl<S: Source> SourceTensors for GgufModel<S> {
    /// Tensors without a counterpart, such as frequencies, keep their stored name.
    fn tensor_names(&self) -> Vec<String> {
        let stored = self.text.names().chain(self.vision.names());
        let mut names: Vec<String> =
            stored.map(|name| hugging_face_name(name).unwrap_or_else(|| name.into())).collect();
        names.sort();
        names.dedup();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match place(name)? {
            Place::One(stored) => self.stored_shape(&stored).map(<[usize]>::to_vec),
            Place::Stacked(parts) => {
                let shapes: Option<Vec<&[usize]>> =
                    parts.iter().map(|part| self.stored_shape(part)).collect();
                let shapes = shapes?;
                let rows = shapes.iter().map(|shape| shape.first()).sum::<Option<usize>>()?;
                let cols = &shapes[0][1..];
                let equal = shapes.iter().all(|shape| &shape[1..] == cols);
                equal.then(|| [&[rows], cols].concat())
            }
            Place::Frames => {
                let [first, second] = FRAMES.map(|frame| self.stored_shape(frame));
                let shape = first.filter(|_| first == second)?;
                let [out, channels, high, wide] = *shape else { return None };
                Some(vec![out, channels, FRAMES.len(), high, wide])
            }
        }
    }

    async fn read_range(&self, name: &str, elements: Range<usize>) -> Result<Vec<f32>> {
        let missing = || Error::UnknownTensor {
            name: name.into(),
            nearest: names::nearest(name, self.tensor_names().iter().map(String::as_str)),
        };
        let shape = self.shape(name).ok_or_else(missing)?;
        let (start, end, n_elements) = (elements.start, elements.end, shape.iter().product());
        if start > end || end > n_elements {
            let file = self.vision.file.clone();
            return Err(Error::ElementRange { file, tensor: name.into(), start, end, n_elements });
        }
        match place(name).ok_or_else(missing)? {
            Place::One(stored) => self.file_of(&stored).read_range(&stored, elements).await,
            Place::Stacked(parts) => self.read_stacked(&parts, elements).await,
            Place::Frames => self.read_frames(&shape, elements).await,
        }
    }
}

impl<S: Source> GgufModel<S> {
    /// Elements of tensors that stand one after the other.
    async fn read_stacked(&self, parts: &[String; 3], elements: Range<usize>) -> Result<Vec<f32>> {
        let (mut values, mut first) = (Vec::with_capacity(elements.len()), 0);
        for part in parts {
            let n: usize = self.stored_shape(part).unwrap_or_default().iter().product();
            let inside = |at: usize| at.saturating_sub(first).min(n);
            let range = inside(elements.start)..inside(elements.end);
            values.extend(self.vision.read_range(part, range).await?);
            first += n;
        }
        Ok(values)
    }

    /// Elements of the patch embedding, whole filters at a time. `shape`: `[out, channels, frames,
    /// side, side]`.
    async fn read_frames(&self, shape: &[usize], elements: Range<usize>) -> Result<Vec<f32>> {
        let (channels, area) = (shape[1], shape[3] * shape[4]);
        let filter = channels * area; // of one frame
        let (first, last) = (elements.start / (2 * filter), elements.end.div_ceil(2 * filter));
        let range = first * filter..last * filter;
        let [early, late] = FRAMES;
        let early = self.vision.read_range(early, range.clone()).await?;
        let late = self.vision.read_range(late, range).await?;
        let mut values = Vec::with_capacity(2 * early.len());
        for (early, late) in early.chunks(area).zip(late.chunks(area)) {
            values.extend_from_slice(early);
            values.extend_from_slice(late);
        }
        let skipped = first * 2 * filter;
        Ok(values[elements.start - skipped..elements.end - skipped].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_both_ways() {
        for (name, stored) in [
            ("model.layers.27.self_attn.q_proj.bias", "blk.27.attn_q.bias"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("visual.blocks.31.mlp.down_proj.bias", "v.blk.31.ffn_down.bias"),
            ("visual.merger.mlp.2.weight", "mm.2.weight"),
            ("lm_head.weight", "output.weight"),
        ] {
            assert!(matches!(place(name), Some(Place::One(got)) if got == stored), "{name}");
            assert_eq!(hugging_face_name(stored).as_deref(), Some(name));
        }
        let Some(Place::Stacked([q, _, v])) = place("visual.blocks.3.attn.qkv.bias") else {
            panic!("not stacked");
        };
        assert_eq!((q.as_str(), v.as_str()), ("v.blk.3.attn_q.bias", "v.blk.3.attn_v.bias"));
        assert_eq!(hugging_face_name(&v).as_deref(), Some("visual.blocks.3.attn.qkv.bias"));
        for unknown in ["rope_freqs.weight", "model.layers.x", "visual.blocks.1.attn.x.weight"] {
            assert!(place(unknown).is_none() && hugging_face_name(unknown).is_none(), "{unknown}");
        }
    }
}
