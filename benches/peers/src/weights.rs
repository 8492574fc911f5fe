//! A Qwen2 model of random weights, as llama.cpp and candle read it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::f16;

use crate::error::{Error, Result};
use crate::gguf::{self, Q4_0_BYTES, Q8_0_BYTES, Storage, Tensor, Value};
use crate::random::Random;
use crate::shape::{Dims, Shape};

/// Positions that the model says it knows.
const CONTEXT: u32 = 32_768;
/// Standard deviation of a nibble, all 16 being equally likely.
const NIBBLE_STD: f32 = 4.61;
/// Standard deviation of a byte, all 256 being equally likely.
const BYTE_STD: f32 = 73.9;

/// Writes the model of `seed`; returns its bytes.
///
/// # Errors
/// [`Error::File`] if the file cannot be written.
pub fn write(path: &Path, shape: Shape, seed: u64) -> Result<u64> {
    let (name, dims) = (shape.name(), shape.dims());
    // There is no tokenizer: all inputs are token ids.
    let tokenizer = ("tokenizer.ggml.model".into(), Value::Text("none".into()));
    let metadata = [metadata(name, &dims), vec![tokenizer]].concat();
    write_file(path, &metadata, &tensors(&dims), seed)
}

/// Writes a file of random weights; returns its bytes.
///
/// # Errors
/// As [`write`].
pub fn write_file(
    path: &Path,
    metadata: &[(String, Value)],
    tensors: &[Tensor],
    seed: u64,
) -> Result<u64> {
    let failed = |source| Error::File { what: "write", path: path.into(), source };
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    let mut streams: Vec<Random> = (0..tensors.len()).map(|i| Random::new(seed, i)).collect();
    let fill = |i: usize, row: &mut [u8]| fill(&tensors[i], &mut streams[i], row);
    let bytes = gguf::write(&mut file, metadata, tensors, fill).map_err(failed)?;
    file.flush().map_err(failed)?;
    Ok(bytes)
}

/// What both readers ask for, but for the tokenizer.
pub fn metadata(name: &str, dims: &Dims) -> Vec<(String, Value)> {
    let text = |key: &str, x: &str| (key.to_string(), Value::Text(x.to_string()));
    let int = |key: &str, x: usize| (format!("qwen2.{key}"), Value::U32(x as u32));
    let float = |key: &str, x: f32| (format!("qwen2.{key}"), Value::F32(x));
    vec![
        text("general.architecture", "qwen2"),
        text("general.name", name),
        int("vocab_size", dims.vocab),
        int("context_length", CONTEXT as usize),
        int("embedding_length", dims.hidden),
        int("block_count", dims.layers),
        int("feed_forward_length", dims.ffn),
        int("attention.head_count", dims.heads),
        int("attention.head_count_kv", dims.kv_heads),
        float("attention.layer_norm_rms_epsilon", 1e-6),
        float("rope.freq_base", 1e6),
    ]
}

/// A vector.
pub fn vector(name: String, n: usize) -> Tensor {
    Tensor { name, shape: vec![n], storage: Storage::F32 }
}

/// All tensors, the largest first.
pub fn tensors(dims: &Dims) -> Vec<Tensor> {
    let (hidden, kv, ffn) = (dims.hidden, dims.kv_dim(), dims.ffn);
    let matrix = |name: String, rows: usize, cols: usize| Tensor {
        name,
        shape: vec![rows, cols],
        storage: Storage::Q4_0,
    };
    let mut all = vec![matrix("token_embd.weight".into(), dims.vocab, hidden)];
    if !dims.tied {
        all.push(matrix("output.weight".into(), dims.vocab, hidden));
    }
    all.push(vector("output_norm.weight".into(), hidden));
    for layer in 0..dims.layers {
        let name = |part: &str| format!("blk.{layer}.{part}");
        all.extend([
            vector(name("attn_norm.weight"), hidden),
            matrix(name("attn_q.weight"), hidden, hidden),
            vector(name("attn_q.bias"), hidden),
            matrix(name("attn_k.weight"), kv, hidden),
            vector(name("attn_k.bias"), kv),
            matrix(name("attn_v.weight"), kv, hidden),
            vector(name("attn_v.bias"), kv),
            matrix(name("attn_output.weight"), hidden, hidden),
            vector(name("ffn_norm.weight"), hidden),
            matrix(name("ffn_gate.weight"), ffn, hidden),
            matrix(name("ffn_up.weight"), ffn, hidden),
            matrix(name("ffn_down.weight"), hidden, ffn),
        ]);
    }
    all
}

/// A row of weights that neither grow nor shrink what passes through them.
fn fill(tensor: &Tensor, random: &mut Random, row: &mut [u8]) {
    match tensor.storage {
        Storage::Q4_0 => {
            let scale = 1.0 / (NIBBLE_STD * (tensor.cols() as f32).sqrt());
            for block in row.chunks_exact_mut(Q4_0_BYTES) {
                let scale = f16::from_f32(scale * (1.0 + 0.25 * random.signed()));
                block[..2].copy_from_slice(&scale.to_le_bytes());
                block[2..10].copy_from_slice(&random.next().to_le_bytes());
                block[10..].copy_from_slice(&random.next().to_le_bytes());
            }
        }
        Storage::Q8_0 => {
            let scale = 1.0 / (BYTE_STD * (tensor.cols() as f32).sqrt());
            for block in row.chunks_exact_mut(Q8_0_BYTES) {
                let scale = f16::from_f32(scale * (1.0 + 0.25 * random.signed()));
                block[..2].copy_from_slice(&scale.to_le_bytes());
                for eight in block[2..].chunks_exact_mut(8) {
                    eight.copy_from_slice(&random.next().to_le_bytes());
                }
            }
        }
        Storage::F16 => {
            let scale = (3.0 / tensor.inputs() as f32).sqrt();
            for value in row.chunks_exact_mut(2) {
                value.copy_from_slice(&f16::from_f32(scale * random.signed()).to_le_bytes());
            }
        }
        Storage::F32 => {
            let is_norm = ["norm.weight", "ln.weight", "ln1.weight", "ln2.weight"];
            let is_norm = is_norm.iter().any(|end| tensor.name.ends_with(end));
            let middle = if is_norm { 1.0 } else { 0.0 };
            for value in row.chunks_exact_mut(size_of::<f32>()) {
                value.copy_from_slice(&(middle + 0.1 * random.signed()).to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_blocks_and_sizes_are_what_the_names_say() {
        for (shape, low, high) in [
            (Shape::Half, 0.40e9, 0.45e9),
            (Shape::Three, 3.0e9, 3.2e9),
            (Shape::Seven, 7.5e9, 7.8e9),
        ] {
            let tensors = tensors(&shape.dims());
            let packed = tensors.iter().filter(|t| t.storage == Storage::Q4_0);
            assert!(packed.clone().all(|t| t.cols() % gguf::Q4_0_BLOCK == 0));
            let n: usize = tensors.iter().map(|t| t.shape.iter().product::<usize>()).sum();
            assert!((low..high).contains(&(n as f64)), "{}: {n}", shape.name());
        }
    }

    #[test]
    fn a_block_is_a_scale_and_32_nibbles_of_the_expected_size() {
        let tensor =
            Tensor { name: "x.weight".into(), shape: vec![1, 4096], storage: Storage::Q4_0 };
        let mut row = vec![0; 4096 / 32 * Q4_0_BYTES];
        fill(&tensor, &mut Random::new(0, 0), &mut row);
        let mut sum_sq = 0.0;
        for block in row.chunks_exact(Q4_0_BYTES) {
            let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
            for byte in &block[2..] {
                for nibble in [byte & 15, byte >> 4] {
                    sum_sq += (scale * (f32::from(nibble) - 8.0)).powi(2);
                }
            }
        }
        // A dot product with 4096 ones, each of variance 1 / 4096.
        assert!((0.9..1.25).contains(&sum_sq), "{sum_sq}");
    }

    #[test]
    fn bytes_and_halves_neither_grow_nor_shrink_what_passes_through_them() {
        let row = |shape: &[usize], storage, bytes: usize| {
            let tensor = Tensor { name: "x.weight".into(), shape: shape.to_vec(), storage };
            let mut row = vec![0; bytes];
            fill(&tensor, &mut Random::new(0, 0), &mut row);
            row
        };
        let half = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        let mut sum_sq = [0.0; 2];
        for block in row(&[1, 4096], Storage::Q8_0, 4096 / 32 * Q8_0_BYTES).chunks(Q8_0_BYTES) {
            let value = |byte: &u8| half(block) * f32::from(*byte as i8);
            sum_sq[0] += block[2..].iter().map(|byte| value(byte).powi(2)).sum::<f32>();
        }
        // A row of a convolution's kernel is one of many that an output is computed from.
        let halves = row(&[1, 32, 8, 16], Storage::F16, 2 * 4096);
        sum_sq[1] = halves.chunks(2).map(|x| half(x).powi(2)).sum::<f32>();
        assert!(sum_sq.iter().all(|x| (0.9..1.25).contains(x)), "{sum_sq:?}");
    }

    #[test]
    fn norms_are_near_one_and_biases_near_zero() {
        for (name, middle) in [("blk.0.attn_norm.weight", 1.0), ("blk.0.attn_q.bias", 0.0)] {
            let tensor = Tensor { name: name.into(), shape: vec![64], storage: Storage::F32 };
            let mut row = vec![0; 256];
            fill(&tensor, &mut Random::new(0, 0), &mut row);
            for value in row.chunks_exact(4) {
                let value = f32::from_le_bytes(value.try_into().unwrap());
                assert!((value - middle).abs() <= 0.1, "{name}: {value}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_file_and_another_does_not() {
        let row = |seed, index| {
            let tensor =
                Tensor { name: "x.weight".into(), shape: vec![64], storage: Storage::Q4_0 };
            let mut row = vec![0; 2 * Q4_0_BYTES];
            fill(&tensor, &mut Random::new(seed, index), &mut row);
            row
        };
        assert_eq!(row(1, 1), row(1, 1));
        assert_ne!(row(1, 1), row(2, 1));
        assert_ne!(row(1, 1), row(1, 2));
    }

    #[cfg(feature = "candle")]
    #[test]
    fn another_reader_finds_every_tensor_and_key() {
        use candle_core::quantized::gguf_file::Content;

        let dims = Shape::Half.dims();
        let tensors: Vec<Tensor> = tensors(&dims)
            .into_iter()
            .map(|t| {
                let cols = if t.storage == Storage::Q4_0 { 32 } else { 4 };
                let shape = if t.shape.len() == 2 { vec![2, cols] } else { vec![cols] };
                Tensor { shape, ..t }
            })
            .collect();
        let mut file = std::io::Cursor::new(Vec::new());
        let mut random = Random::new(0, 0);
        gguf::write(&mut file, &metadata("", &dims), &tensors, |i, row| {
            fill(&tensors[i], &mut random, row);
        })
        .unwrap();
        file.set_position(0);
        let content = Content::read(&mut file).unwrap();
        assert_eq!(content.metadata["qwen2.block_count"].to_u32().unwrap(), 24);
        for tensor in &tensors {
            let read = content.tensor(&mut file, &tensor.name, &candle_core::Device::Cpu).unwrap();
            assert_eq!(read.shape().dims(), tensor.shape, "{}", tensor.name);
            let sum = read.dequantize(&candle_core::Device::Cpu).unwrap().abs().unwrap();
            let sum = sum.sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(sum > 0.0 && sum < 1e3, "{}: {sum}", tensor.name);
        }
    }
}
