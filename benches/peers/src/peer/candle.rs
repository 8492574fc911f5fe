//! candle, on the CPU.

use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_qwen2::ModelWeights;

use super::{FIRST_TOKENS, Job, likeliest, prompt, refused};
use crate::args::Work;
use crate::error::{Error, Result};
use crate::report::{Decode, Image, Measured, locked_version};
use crate::stats::Rate;

/// Loads the model and measures.
///
/// # Errors
/// [`Error::File`] or [`Error::Peer`] if candle cannot read the model, [`Error::NotFinite`] if it
/// computes no numbers.
pub fn measure(job: &Job) -> Result<Measured> {
    let work = &job.work;
    let start = Instant::now();
    let failed = |source| Error::File { what: "read", path: job.gguf.clone(), source };
    let mut file = BufReader::new(File::open(&job.gguf).map_err(failed)?);
    let load = refused::<candle_core::Error>("load the model");
    let content = Content::read(&mut file).map_err(&load)?;
    let model = ModelWeights::from_gguf(content, &mut file, &Device::Cpu).map_err(&load)?;
    let load_seconds = start.elapsed().as_secs_f64();

    let mut session = Session { model };
    let (prefill, first_tokens) = prefill(&mut session, work)?;
    let decode = work.batch.iter().map(|batch| decode(&mut session, work, *batch));
    Ok(Measured {
        adapter: format!("CPU, {} threads", work.threads),
        version: format!("candle {}", locked_version("candle-core")),
        load_seconds,
        image: match work.image {
            0 => Image::default(),
            _ => Image::not("its Qwen2 has no vision tower"),
        },
        prefill,
        decode: decode.collect::<Result<_>>()?,
        first_tokens: Some(first_tokens),
        report: None,
    })
}

/// The model, which holds the keys and values of one sequence.
struct Session {
    model: ModelWeights,
}

impl Session {
    /// Computes `ids` from `position` on, 0 forgetting what was; returns the likeliest next token.
    fn forward(&mut self, ids: &[u32], position: usize) -> Result<u32> {
        let compute = || {
            let x = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
            self.model.forward(&x, position)?.flatten_all()?.to_vec1::<f32>()
        };
        let mut compute = compute;
        let logits = compute().map_err(refused::<candle_core::Error>("compute"))?;
        Ok(likeliest(&logits, 1)?[0])
    }
}

/// How fast a prompt goes, and the greedy answer to it.
fn prefill(session: &mut Session, work: &Work) -> Result<(Rate, Vec<u32>)> {
    let ids = prompt(work);
    let mut times = Vec::new();
    let mut token = 0;
    for i in 0..=work.repeats {
        let start = Instant::now();
        token = session.forward(&ids, 0)?;
        times.extend((i > 0).then_some(start.elapsed().as_secs_f64())); // the first warms up
    }
    let mut answer = vec![token];
    for i in 1..work.tokens.min(FIRST_TOKENS) {
        token = session.forward(&[token], work.prompt + i - 1)?;
        answer.push(token);
    }
    Ok((Rate::new(work.prompt, times), answer))
}

/// How fast an answer goes.
fn decode(session: &mut Session, work: &Work, batch: usize) -> Result<Decode> {
    if batch > 1 {
        return Ok(Decode::not(batch, "candle's Qwen2 has no sequences that share a prompt"));
    }
    let ids = prompt(work);
    let mut times = Vec::new();
    for i in 0..=work.repeats {
        // Its cache cannot be cut back, so each answer computes the prompt again, untimed.
        let mut token = session.forward(&ids, 0)?;
        token = session.forward(&[token], work.prompt)?;
        let start = Instant::now();
        for step in 0..work.timed_steps() {
            token = session.forward(&[token], work.prompt + 1 + step)?;
        }
        let seconds = start.elapsed().as_secs_f64() / work.timed_steps() as f64;
        times.extend((i > 0).then_some(seconds));
    }
    Ok(Decode::new(batch, Rate::new(batch, times)))
}
