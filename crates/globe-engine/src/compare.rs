//! How far one model is from another of the same kind: what quantization costs.

use globe_image::Photo;
use globe_model::TraceStage;
use globe_ops::{Tensor, gather_rows, read_f32, tensor_i32};
use globe_text::Prompt;
use serde::Serialize;

use crate::sampling::argmax;
use crate::{Cancel, Engine, Error, Generation, Prepared, Result, Sampling};

/// What is compared.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// What both models are asked.
    pub prompt: Prompt,
    /// Tokens of the answer that is forced on both.
    pub max_tokens: usize,
    /// Most pixels after resizing; `None` takes the limit of the first model's folder.
    pub max_pixels: Option<usize>,
}

/// Distance of model B from model A over one image.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Tokens that were compared.
    pub tokens: usize,
    /// Share of them where both models think the same token most likely.
    pub top1_agreement: f64,
    /// Mean of KL(A || B) over the tokens, nats.
    pub mean_kl: f64,
    /// Largest difference of logits over the largest logit of A.
    pub largest_logit_error: f64,
    /// Cosine between the activations of A and B after each layer, for the tokens compared.
    pub layer_cosine: Vec<f64>,
}

/// Logits and activations of one model.
struct Seen {
    logits: Vec<f32>,
    layers: Vec<Vec<f32>>,
}

/// Lets A answer greedily, forces that answer on both models, and compares them token by token:
/// comparing free answers would count one early difference many times.
///
/// # Errors
/// [`Error::Differ`] if the models read the photo differently, otherwise as
/// [`Engine::prefill`] and [`Engine::generate`].
pub async fn compare(
    a: &Engine,
    b: &Engine,
    photo: &Photo,
    options: &CompareOptions,
    cancel: &Cancel,
) -> Result<Comparison> {
    let seen_by_a = look(a, photo, options)?;
    let answer = answer(a, &seen_by_a, options.max_tokens, cancel).await?;
    let (of_a, vocab) = forced(a, seen_by_a, &answer).await?;
    let (of_b, vocab_b) = forced(b, look(b, photo, options)?, &answer).await?;
    if vocab != vocab_b || of_a.logits.len() != of_b.logits.len() {
        return Err(Error::Differ { a: of_a.logits.len(), b: of_b.logits.len() });
    }
    Ok(distance(&of_a, &of_b, vocab))
}

/// A prompt and the features of its photo, computed once.
type Looked = (Prepared, Option<Tensor<2>>);

fn look(engine: &Engine, photo: &Photo, options: &CompareOptions) -> Result<Looked> {
    let mut prepared = engine.prepare(&[photo], &options.prompt, options.max_pixels)?;
    let features = engine.encode(&mut prepared)?;
    Ok((prepared, features))
}

async fn answer(
    engine: &Engine,
    (prepared, features): &Looked,
    max_tokens: usize,
    cancel: &Cancel,
) -> Result<Vec<u32>> {
    let mut session = engine.prefill(prepared, features.clone(), max_tokens)?;
    let sampling = Sampling::greedy();
    let generation = Generation { sampling, seed: 0, sample: 0, max_tokens, ignore_stop: true };
    let mut ids = engine.generate(&mut session, &generation, cancel, &mut |_| {}).await?.ids;
    // Read back, an image token would ask for an image: it is only predicted.
    let image = engine.model().config().image_token_id;
    if let Some(end) = ids.iter().position(|id| *id == image) {
        ids.truncate(end + 1);
    }
    Ok(ids)
}

/// What a model says at every token of `answer`.
async fn forced(
    engine: &Engine,
    (mut prepared, features): Looked,
    answer: &[u32],
) -> Result<(Seen, usize)> {
    // The last token of the answer is only predicted, never read.
    prepared.ids.extend_from_slice(&answer[..answer.len().saturating_sub(1)]);
    let (model, Prepared { ids, grids, .. }, n) = (engine.model(), &prepared, answer.len());
    let logits_bytes = 4 * n as u64 * model.config().text.vocab_size as u64;
    engine
        .compute
        .check_binding(engine.plan(&prepared, 0, false, 1).largest_buffer.max(logits_bytes))?;
    let mut cache = model.cache(ids.len(), 0, 1);
    let seen: Vec<i32> = (ids.len() - n..ids.len()).map(|row| row as i32).collect();
    let seen = tensor_i32(seen, [n], &engine.compute.device);
    let mut traced: Vec<Tensor<2>> = Vec::new();
    let mut trace = |stage, x: &Tensor<2>| {
        if matches!(stage, TraceStage::TextLayer(_)) {
            // A copy: a view would keep the rows of the whole prompt on the device.
            traced.push(gather_rows(x, seen.clone()));
        }
    };
    let logits = model.prefill_traced(ids, features, grids, &mut cache, n, &mut trace)?;
    let [_, vocab] = logits.dims();
    let logits = crate::engine::finite(read_f32(logits).await?)?;
    let mut layers = Vec::with_capacity(traced.len());
    for x in traced {
        layers.push(read_f32(x).await?);
    }
    Ok((Seen { logits, layers }, vocab))
}

fn distance(a: &Seen, b: &Seen, vocab: usize) -> Comparison {
    let tokens = a.logits.len() / vocab;
    let (mut same, mut kl) = (0, 0.0);
    for (a, b) in a.logits.chunks(vocab).zip(b.logits.chunks(vocab)) {
        same += usize::from(argmax(a) == argmax(b));
        kl += divergence(a, b);
    }
    let largest = a.logits.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let error = a.logits.iter().zip(&b.logits).fold(0.0f32, |m, (x, y)| m.max((x - y).abs()));
    Comparison {
        tokens,
        top1_agreement: same as f64 / tokens.max(1) as f64,
        mean_kl: kl / tokens.max(1) as f64,
        largest_logit_error: f64::from(error) / f64::from(largest.max(f32::MIN_POSITIVE)),
        layer_cosine: a.layers.iter().zip(&b.layers).map(|(a, b)| cosine(a, b)).collect(),
    }
}

/// KL(softmax(a) || softmax(b)).
fn divergence(a: &[f32], b: &[f32]) -> f64 {
    let log_sum = |x: &[f32]| {
        let highest = f64::from(x.iter().copied().fold(f32::MIN, f32::max));
        highest + x.iter().map(|l| (f64::from(*l) - highest).exp()).sum::<f64>().ln()
    };
    let (sum_a, sum_b) = (log_sum(a), log_sum(b));
    let terms = a.iter().zip(b).map(|(a, b)| {
        let log_p = f64::from(*a) - sum_a;
        log_p.exp() * (log_p - (f64::from(*b) - sum_b))
    });
    terms.sum::<f64>().max(0.0) // rounding may leave a little less than nothing
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_at_no_distance_from_itself() {
        let seen = Seen { logits: vec![1.0, 2.0, -1.0, 0.5], layers: vec![vec![1.0, -2.0]] };
        let same = distance(&seen, &seen, 2);
        assert_eq!((same.tokens, same.top1_agreement, same.mean_kl), (2, 1.0, 0.0));
        assert_eq!((same.largest_logit_error, &same.layer_cosine[..]), (0.0, &[1.0][..]));
    }

    #[test]
    fn divergence_follows_its_definition() {
        // p = (1/4, 3/4), q = (1/2, 1/2): 1/4 ln 1/2 + 3/4 ln 3/2.
        let kl = divergence(&[0.0, 3f32.ln()], &[0.0, 0.0]);
        let expected = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
        assert!((kl - expected).abs() < 1e-7, "{kl}");
    }
}
