//! llama.cpp, on the CPU or on a Vulkan device.

use std::num::NonZeroU32;
use std::time::Instant;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::mtmd::{
    MtmdBitmap, MtmdContext, MtmdContextParams, MtmdInputChunkType, MtmdInputChunks, MtmdInputText,
    mtmd_default_marker,
};
use llama_cpp_2::token::LlamaToken;

use super::{Job, likeliest, prompt, refused};
use crate::args::Work;
use crate::error::{Error, Result};
use crate::report::{Decode, Image, Measured, locked_version};
use crate::stats::Rate;
use crate::tower::TOKEN_SIDE;

/// Where it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// All layers on the CPU.
    Cpu,
    /// All layers on one Vulkan device.
    #[cfg(feature = "vulkan")]
    Vulkan,
}

impl Place {
    /// The devices that the model may use, as llama.cpp counts them, and their name.
    fn devices(self, job: &Job) -> Result<(Vec<usize>, String)> {
        match self {
            Self::Cpu => Ok((Vec::new(), format!("CPU, {} threads", job.work.threads))),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => {
                // Started with GGML_VK_VISIBLE_DEVICES, the only one that is left is the one.
                let found = llama_cpp_2::list_llama_ggml_backend_devices();
                let device = found
                    .into_iter()
                    .find(|device| device.backend == "Vulkan")
                    .ok_or(Error::Device { index: job.vulkan_device })?;
                Ok((vec![device.index], device.description))
            }
        }
    }
}

/// Loads the model and measures.
///
/// # Errors
/// [`Error::Device`] without a Vulkan device, [`Error::Peer`] if llama.cpp refuses the model or a
/// batch, [`Error::NotFinite`] if it computes no numbers.
pub fn measure(job: &Job, place: Place) -> Result<Measured> {
    let work = &job.work;
    let backend = LlamaBackend::init().map_err(refused("start llama.cpp"))?;
    let (devices, adapter) = place.devices(job)?;
    let params = LlamaModelParams::default()
        .with_n_gpu_layers(if devices.is_empty() { 0 } else { u32::MAX })
        .with_devices(&devices)
        .map_err(refused("choose the device"))?;
    let start = Instant::now();
    let model = LlamaModel::load_from_file(&backend, &job.gguf, &params)
        .map_err(refused("load the model"))?;
    let load_seconds = start.elapsed().as_secs_f64();

    let context = |sequences| {
        let params = context_params(work, place, sequences);
        model.new_context(&backend, params).map_err(refused("create a context"))
    };
    // A tower that has no room must not take the answers with it.
    let image = match work.image {
        0 => Image::default(),
        _ => image(job, place, &backend, &params)
            .map_or_else(|error| Image::not(&error.to_string()), Image::new),
    };
    let (prefill, first_tokens) = prefill(&mut Session::new(context(1)?, 1), work)?;
    let decode = work
        .batch
        .iter()
        .map(|&batch| decode(&mut Session::new(context(batch)?, batch), work, batch))
        .collect::<Result<_>>()?;
    Ok(Measured {
        adapter,
        version: format!("llama-cpp-sys-2 {}", locked_version("llama-cpp-sys-2")),
        load_seconds,
        image,
        prefill,
        decode,
        first_tokens: Some(first_tokens),
        report: None,
    })
}

/// How fast an image goes, from its pixels, resized and normalised, to its tokens on the host.
fn image(
    job: &Job,
    place: Place,
    backend: &LlamaBackend,
    params: &LlamaModelParams,
) -> Result<Rate> {
    let work = &job.work;
    let expected = (work.image / TOKEN_SIDE).pow(2);
    let taker = LlamaModel::load_from_file(backend, &job.tower.taker, params)
        .map_err(refused("load what takes the tower's tokens"))?;
    let params = MtmdContextParams {
        use_gpu: place != Place::Cpu,
        print_timings: false,
        n_threads: work.threads as i32,
        image_max_tokens: expected as i32, // what it reserves memory for
        ..MtmdContextParams::default()
    };
    let mut tower =
        MtmdContext::init_from_file(&job.tower.weights.to_string_lossy(), &taker, &params)
            .map_err(refused("load the tower"))?;
    let mut times = Vec::new();
    for i in 0..=work.repeats {
        let chunks = patches(&tower, work.image, i)?;
        let image = (0..chunks.len())
            .filter_map(|chunk| chunks.get(chunk))
            .find(|chunk| chunk.chunk_type() == MtmdInputChunkType::Image)
            .ok_or(Error::Missing { peer: job.peer, what: "the image among its chunks" })?;
        if image.n_tokens() != expected {
            let reason = format!("{} tokens, not {expected}", image.n_tokens());
            return Err(Error::Peer { step: "take an image apart", reason });
        }
        let start = Instant::now();
        tower.encode_chunk(&image).map_err(refused("encode an image"))?;
        times.extend((i > 0).then_some(start.elapsed().as_secs_f64())); // the first warms up
    }
    Ok(Rate::new(expected, times))
}

/// Image number `i`, ready for the tower.
fn patches(tower: &MtmdContext, side: usize, i: usize) -> Result<MtmdInputChunks> {
    let pixels: Vec<u8> = (0..3 * side * side).map(|p| ((p + i) % 255) as u8).collect();
    let bitmap = MtmdBitmap::from_image_data(side as u32, side as u32, &pixels)
        .map_err(refused("take an image"))?;
    let text = mtmd_default_marker().to_string();
    let text = MtmdInputText { text, add_special: false, parse_special: true };
    tower.tokenize(text, &[&bitmap]).map_err(refused("take an image apart"))
}

fn context_params(work: &Work, place: Place, sequences: usize) -> LlamaContextParams {
    let cells = work.prompt + work.tokens * sequences;
    let on_device = place != Place::Cpu;
    LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(cells as u32))
        .with_n_batch(work.prompt.max(sequences) as u32)
        .with_n_seq_max(sequences as u32)
        // What llama.cpp advises for sequences with a long common prefix.
        .with_kv_unified(true)
        .with_n_threads(work.threads as i32)
        .with_n_threads_batch(work.threads as i32)
        // A device that was not asked for must not help the CPU.
        .with_op_offload(on_device)
        .with_offload_kqv(on_device)
}

/// A context and the batch that goes in.
struct Session<'a> {
    context: LlamaContext<'a>,
    batch: LlamaBatch<'static>,
}

impl<'a> Session<'a> {
    fn new(context: LlamaContext<'a>, sequences: usize) -> Self {
        let tokens = (context.n_batch() as usize).max(sequences);
        Self { context, batch: LlamaBatch::new(tokens, 1) }
    }

    fn push(&mut self, id: u32, position: usize, sequence: usize, logits: bool) -> Result<()> {
        self.batch
            .add(LlamaToken::new(id as i32), position as i32, &[sequence as i32], logits)
            .map_err(refused("fill a batch"))
    }

    /// Computes the prompt in sequence 0; returns the `n` likeliest tokens after it.
    fn prompt(&mut self, ids: &[u32], n: usize) -> Result<Vec<u32>> {
        self.batch.clear();
        for (i, id) in ids.iter().enumerate() {
            self.push(*id, i, 0, i + 1 == ids.len())?;
        }
        self.context.decode(&mut self.batch).map_err(refused("compute the prompt"))?;
        likeliest(self.context.get_logits_ith(ids.len() as i32 - 1), n)
    }

    /// Puts the next token of each sequence in the place of its last.
    fn step(&mut self, tokens: &mut [u32], position: usize) -> Result<()> {
        self.batch.clear();
        for (sequence, id) in tokens.iter().enumerate() {
            self.push(*id, position, sequence, true)?;
        }
        self.context.decode(&mut self.batch).map_err(refused("compute a step"))?;
        for (sequence, id) in tokens.iter_mut().enumerate() {
            *id = likeliest(self.context.get_logits_ith(sequence as i32), 1)?[0];
        }
        Ok(())
    }

    /// Takes back what follows the prompt.
    fn rewind(&mut self, sequences: usize, prompt: usize) -> Result<()> {
        for sequence in 0..sequences {
            self.context
                .clear_kv_cache_seq(Some(sequence as u32), Some(prompt as u32), None)
                .map_err(refused("take answers back"))?;
        }
        Ok(())
    }
}

/// How fast a prompt goes, and the greedy answer to it.
fn prefill(session: &mut Session, work: &Work) -> Result<(Rate, Vec<u32>)> {
    let ids = prompt(work);
    let mut times = Vec::new();
    let mut token = Vec::new();
    for i in 0..=work.repeats {
        session.context.clear_kv_cache();
        let start = Instant::now();
        token = session.prompt(&ids, 1)?;
        times.extend((i > 0).then_some(start.elapsed().as_secs_f64())); // the first warms up
    }
    let mut answer = token.clone();
    for i in 1..work.tokens.min(super::FIRST_TOKENS) {
        session.step(&mut token, work.prompt + i - 1)?;
        answer.extend(&token);
    }
    Ok((Rate::new(work.prompt, times), answer))
}

/// How fast `batch` answers to one prompt go, which is computed once.
fn decode(session: &mut Session, work: &Work, batch: usize) -> Result<Decode> {
    let first = session.prompt(&prompt(work), batch)?;
    for sequence in 1..batch {
        session
            .context
            .copy_kv_cache_seq(0, sequence as i32, None, None)
            .map_err(refused("share the prompt"))?;
    }
    let mut times = Vec::new();
    for i in 0..=work.repeats {
        session.rewind(batch, work.prompt)?;
        let mut tokens = first.clone();
        session.step(&mut tokens, work.prompt)?;
        let start = Instant::now();
        for step in 0..work.timed_steps() {
            session.step(&mut tokens, work.prompt + 1 + step)?;
        }
        let seconds = start.elapsed().as_secs_f64() / work.timed_steps() as f64;
        times.extend((i > 0).then_some(seconds));
    }
    Ok(Decode::new(batch, Rate::new(batch, times)))
}
