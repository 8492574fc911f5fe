//! One photo to ranked places.

use globe_geo::{
    Gazetteer, Outcome, ParseStatus, ParsedAnswer, Precision, Sample, candidates, parse_answer,
};
use globe_image::{Gps, Photo};
use globe_text::Prompt;
use serde::Serialize;
use web_time::Instant;

use crate::{
    Cancel, DEFAULT_BATCH, Engine, Error, Event, FeatureCache, Generated, Generation, Result,
    Sampling, StopReason,
};

/// Version of [`LocateResult`]; it grows when a field changes its meaning.
const SCHEMA: u32 = 1;

/// How a photo is located.
#[derive(Clone, Debug)]
pub struct LocateOptions {
    /// What the model is asked.
    pub prompt: Prompt,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Answers to sample.
    pub samples: u32,
    /// Answers to sample at once; an error if they do not fit. `None` samples as many at once as
    /// fit, at most [`DEFAULT_BATCH`].
    pub batch: Option<u32>,
    /// Most candidates to return.
    pub top_k: usize,
    /// Names the run.
    pub seed: u64,
    /// Most tokens per answer.
    pub max_tokens: usize,
    /// Most pixels after resizing; `None` takes the limit of the model folder.
    pub max_pixels: Option<usize>,
    /// How precisely places are shown.
    pub precision: Precision,
}

impl Default for LocateOptions {
    fn default() -> Self {
        Self {
            prompt: Prompt::reason(),
            sampling: Sampling::default(),
            samples: 8,
            batch: None,
            top_k: 5,
            seed: 0,
            max_tokens: 512,
            max_pixels: None,
            precision: Precision::City,
        }
    }
}

impl LocateOptions {
    fn check(&self) -> Result<()> {
        let positive = |name, value: usize| match value {
            0 => Err(Error::Option { name, value, expected: "at least 1" }),
            _ => Ok(()),
        };
        positive("samples", self.samples as usize)?;
        positive("batch", self.batch.map_or(1, |n| n as usize))?;
        positive("top_k", self.top_k)?;
        positive("max_tokens", self.max_tokens)?;
        self.sampling.check()
    }

    /// Answers to sample at once, if there is room.
    pub fn at_once(&self) -> u32 {
        self.samples.min(self.batch.unwrap_or(DEFAULT_BATCH))
    }
}

/// Where a photo may have been taken, and how that was found.
#[derive(Clone, Debug, Serialize)]
pub struct LocateResult {
    /// Version of this layout.
    pub schema: u32,
    /// Candidates and counts.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Every answer, in order.
    pub answers: Vec<SampleResult>,
    /// Position written in the file, rounded like the candidates. The model never saw it.
    pub exif_gps: Option<ExifGps>,
    /// Architecture of the model.
    pub model: String,
    /// Adapter that computed.
    pub adapter: String,
    /// Hash of the prompt.
    pub prompt_sha256: String,
    /// Version of the gazetteer.
    pub gazetteer: String,
    /// How tokens were chosen.
    pub sampling: Sampling,
    /// The seed of the run.
    pub seed: u64,
    /// Where the time went.
    pub timings: Timings,
}

/// A position from EXIF, degrees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ExifGps {
    /// Latitude.
    pub lat: f64,
    /// Longitude.
    pub lon: f64,
}

impl ExifGps {
    /// The position to about a kilometre, or to ten or a hundred of them.
    fn new(gps: Gps, precision: Precision) -> Self {
        let steps_per_degree = match precision {
            Precision::City => 100.0,
            Precision::Region => 10.0,
            Precision::Country => 1.0,
        };
        let round = |degrees: f64| (degrees * steps_per_degree).round() / steps_per_degree;
        Self { lat: round(gps.latitude), lon: round(gps.longitude) }
    }
}

/// One sampled answer. Its text is written by a model: it is not evidence. City and text are
/// withheld when less than a city is to be shown.
#[derive(Clone, Debug, Serialize)]
pub struct SampleResult {
    /// How the answer could be read.
    pub parse_status: ParseStatus,
    /// Country as the model wrote it.
    pub country: Option<String>,
    /// City as the model wrote it.
    pub city: Option<String>,
    /// What the model wrote before its answer.
    pub reasoning: Option<String>,
    /// The whole text.
    pub text: Option<String>,
    /// Its length in tokens.
    pub tokens: usize,
    /// Why it ended.
    pub stop: StopReason,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Timings {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of the image.
    pub image_tokens: usize,
    /// Tokens of all answers.
    pub answer_tokens: usize,
    /// Most answers that were sampled at once.
    pub at_once: u32,
    /// Resizing, patches, tokens.
    pub prepare_ms: f64,
    /// Vision tower and prompt.
    pub prefill_ms: f64,
    /// All answers.
    pub decode_ms: f64,
}

fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Samples answers for one photo and ranks the places they name. A photo whose features are kept
/// is not encoded again, whatever it is asked.
///
/// # Errors
/// [`Error::Cancelled`] if a stop was asked for; otherwise what cannot be used and why. An answer
/// that cannot be read is no error: it is counted in the result.
pub async fn locate(
    engine: &Engine,
    gazetteer: &Gazetteer,
    photo: &Photo,
    options: &LocateOptions,
    features: &FeatureCache,
    cancel: &Cancel,
    on_event: &mut dyn FnMut(Event),
) -> Result<LocateResult> {
    options.check()?;
    let start = Instant::now();
    let mut prepared = engine.prepare(&[photo], &options.prompt, options.max_pixels)?;
    let (prompt_tokens, image_tokens) = (prepared.ids.len(), prepared.n_image_tokens);
    on_event(Event::Prepared { prompt_tokens, image_tokens });
    let mut timings = Timings { prompt_tokens, image_tokens, ..Timings::default() };
    timings.prepare_ms = ms_since(start);

    // A device error costs the whole run, a plan that does not fit only this photo.
    let (penalties, forced) = (options.sampling.has_penalties(), options.batch.is_some());
    let (max_tokens, wanted) = (options.max_tokens, options.at_once());
    timings.at_once = engine.answers_at_once(&prepared, max_tokens, penalties, wanted, forced)?;
    let start = Instant::now();
    stop_if(cancel)?;
    let features = engine.encode_cached(&mut prepared, features)?;
    on_event(Event::Encoded);
    stop_if(cancel)?;
    let mut session =
        engine.prefill_for(&prepared, features, max_tokens, timings.at_once as usize)?;
    session.logits().await?; // waits for the device, and refuses broken numbers early
    on_event(Event::Prefilled);
    timings.prefill_ms = ms_since(start);

    let start = Instant::now();
    let (mut answers, mut samples) = (Vec::new(), Vec::new());
    let LocateOptions { sampling, seed, max_tokens, .. } = *options;
    let generation = Generation { sampling, seed, sample: 0, max_tokens, ignore_stop: false };
    let generated =
        engine.generate_all(&mut session, &generation, options.samples, cancel, on_event).await?;
    for generated in generated {
        let answer = parse_answer(&generated.text);
        samples.push(Sample::from_answer(&answer, gazetteer));
        timings.answer_tokens += generated.ids.len();
        answers.push(sample_result(answer, generated, options.precision));
    }
    timings.decode_ms = ms_since(start);

    Ok(LocateResult {
        schema: SCHEMA,
        outcome: candidates(&samples, options.top_k).rounded(options.precision, gazetteer),
        answers,
        exif_gps: photo.gps.map(|gps| ExifGps::new(gps, options.precision)),
        model: engine.model().architecture().into(),
        adapter: engine.adapter().into(),
        prompt_sha256: options.prompt.sha256(),
        gazetteer: gazetteer.version().into(),
        sampling: options.sampling,
        seed: options.seed,
        timings,
    })
}

fn stop_if(cancel: &Cancel) -> Result<()> {
    if cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}

/// Free text may name anything, so it is shown only where a city may be.
fn sample_result(answer: ParsedAnswer, generated: Generated, precision: Precision) -> SampleResult {
    let shown = precision == Precision::City;
    SampleResult {
        parse_status: answer.status,
        country: answer.country,
        city: answer.city.filter(|_| shown),
        reasoning: answer.reasoning.filter(|_| shown),
        tokens: generated.ids.len(),
        stop: generated.stop,
        text: Some(generated.text).filter(|_| shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(precision: Precision) -> SampleResult {
        let text = "<think>Isar</think><answer>\ncountry: Germany\ncity: Munich\n</answer>";
        let stop = StopReason::EndOfText;
        let (ids, logp) = (vec![1, 2], vec![0.0; 2]);
        let generated = Generated { ids, logp, text: text.into(), stop };
        sample_result(parse_answer(text), generated, precision)
    }

    #[test]
    fn a_coarse_result_withholds_city_and_text() {
        let full = answer(Precision::City);
        assert_eq!(full.city.as_deref(), Some("Munich"));
        assert!(full.text.is_some() && full.reasoning.is_some());
        for precision in [Precision::Country, Precision::Region] {
            let json = serde_json::to_string(&answer(precision)).unwrap();
            assert!(json.contains("Germany") && !json.contains("Munich") && !json.contains("Isar"));
        }
    }

    #[test]
    fn the_position_of_the_file_is_rounded() {
        let gps = Gps { latitude: 48.13743, longitude: -11.57549 };
        let at = |precision| ExifGps::new(gps, precision);
        assert_eq!(at(Precision::City), ExifGps { lat: 48.14, lon: -11.58 });
        assert_eq!(at(Precision::Region), ExifGps { lat: 48.1, lon: -11.6 });
        assert_eq!(at(Precision::Country), ExifGps { lat: 48.0, lon: -12.0 });
    }
}
