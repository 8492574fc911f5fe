//! `globe locate`.

use std::path::Path;

use anyhow::anyhow;
use globe_engine::{
    Demand, Engine, Error, Event, FeatureCache, LocateOptions, LocateResult, locate,
};
use globe_geo::Gazetteer;

use crate::args::{Format, LocateArgs};
use crate::console::printable;
use crate::exit::{Exit, Fail, OrUsage, chain};
use crate::input::{largest_photo, load_engine, open_folder, read_photo};
use crate::interrupt::Interrupt;
use crate::memory::{PhaseMemory, Phases};
use crate::output::{Formatter, Record, Status, formatter, seconds};
use crate::progress::{Answers, Progress};
use crate::sink::Sink;

/// Locates every image.
pub fn run(args: &LocateArgs) -> Result<Exit, Fail> {
    let interrupt = Interrupt::install()?;
    pollster::block_on(locate_all(args, &interrupt))
}

async fn locate_all(args: &LocateArgs, interrupt: &Interrupt) -> Result<Exit, Fail> {
    let options = args.options()?;
    let folder = open_folder(args.model.model.as_deref())?;
    // An output that cannot be written is better known before the work than after it.
    let sink = Sink::open(args.out.as_deref(), interrupt).or_usage()?;
    let gazetteer = Gazetteer::full()?;
    let mut loading = Phases::begin();
    let largest = largest_photo(&args.images);
    let demand = demand(&options, largest);
    let engine = load_engine(&folder, &args.model, demand, args.quiet).await?;
    loading.end("load", engine.compute());
    let progress = Progress::images(args.images.len(), args.quiet);
    let architecture = engine.model().architecture();
    progress.note(&format!("{architecture} on {}", engine.adapter()));
    let show_text = args.format == Format::Text && !args.quiet;
    // Room for one photo: it may be named twice.
    let kept =
        largest.and_then(|photo| engine.feature_bytes(photo, options.max_pixels).ok()).unwrap_or(0);
    let features = FeatureCache::new(kept);
    let loading = loading.finish();
    let run = Run { engine, gazetteer, options, features, interrupt, progress, show_text, loading };
    let mut results = Results { sink, formatter: formatter(args.format, args.precision) };

    interrupt.begin_work();
    let mut statuses = Vec::new();
    let end = run.images(args, &mut results, &mut statuses).await;
    run.progress.clear();
    // A file with nothing in it is no result.
    if args.out.is_none() || !statuses.is_empty() {
        results.sink.write(&results.formatter.end())?;
        results.sink.finish()?;
    }
    end.map(|end| end.unwrap_or_else(|| exit_of(&statuses)))
}

/// What must fit at least: without `--batch`, answers are cut into batches as small as one.
fn demand(options: &LocateOptions, largest: Option<[usize; 2]>) -> Demand {
    Demand {
        prompt: options.prompt.clone(),
        photo: largest,
        photos: usize::from(largest.is_some()), // an image that cannot be read is reported later
        max_pixels: options.max_pixels,
        answers: options.batch.map_or(1, |_| options.at_once() as usize),
        max_tokens: options.max_tokens,
        penalties: options.sampling.has_penalties(),
        ..Demand::default() // the cache is chosen with the model
    }
}

fn exit_of(statuses: &[Status]) -> Exit {
    if statuses.contains(&Status::Failed) {
        Exit::ImageFailed
    } else if statuses.contains(&Status::NotLocated) {
        Exit::NotFound
    } else {
        Exit::Success
    }
}

/// What all images share.
struct Run<'a> {
    engine: Engine,
    gazetteer: Gazetteer,
    options: LocateOptions,
    features: FeatureCache,
    interrupt: &'a Interrupt,
    progress: Progress,
    show_text: bool,
    loading: Vec<PhaseMemory>,
}

struct Results {
    sink: Sink,
    formatter: Box<dyn Formatter>,
}

/// Why one image has no result.
enum Stop {
    Cancelled,
    /// The next image would meet the same.
    Fatal(Error),
    Image(anyhow::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Self::Cancelled,
            Error::Ops(globe_ops::Error::Device { .. })
            | Error::Model(globe_model::Error::Ops(globe_ops::Error::Device { .. })) => {
                Self::Fatal(error)
            }
            other => Self::Image(other.into()),
        }
    }
}

impl Run<'_> {
    /// One image after the other; an exit code if that was decided before the last.
    async fn images(
        &self,
        args: &LocateArgs,
        results: &mut Results,
        statuses: &mut Vec<Status>,
    ) -> Result<Option<Exit>, Fail> {
        results.sink.write(&results.formatter.begin())?;
        for path in &args.images {
            if self.interrupt.cancel().is_cancelled() {
                return Ok(Some(Exit::Interrupted));
            }
            let image = path.display().to_string();
            let mut phases = Phases::begin();
            let outcome = match self.image(path, &printable(&image), &mut phases).await {
                Ok(result) => Ok(result),
                Err(Stop::Image(error)) => {
                    let reason = chain(&error);
                    self.progress.error(&format!("error: {}: {reason}", printable(&image)));
                    Err(reason)
                }
                Err(Stop::Cancelled) => return Ok(Some(Exit::Interrupted)),
                Err(Stop::Fatal(error)) => return Err(anyhow!(error).into()),
            };
            let memory = match outcome {
                Ok(_) => [&self.loading[..], &phases.finish()].concat(),
                Err(_) => Vec::new(),
            };
            let record = Record { image, outcome, memory };
            let text = results.formatter.record(&record)?;
            self.progress.suspend(|| results.sink.write(&text))?;
            self.progress.advance();
            statuses.push(record.status());
        }
        Ok(None)
    }

    async fn image(
        &self,
        path: &Path,
        name: &str,
        phases: &mut Phases,
    ) -> Result<LocateResult, Stop> {
        let photo = read_photo(path).map_err(Stop::Image)?;
        if let Some(warning) = photo.exif_warning {
            self.progress.note(&format!("{name}: {warning}"));
        }
        let samples = self.options.samples;
        let mut answers = Answers::new(&self.progress, name, samples, self.show_text);
        let compute = self.engine.compute();
        let mut on_event = |event: Event| {
            match event {
                Event::Encoded => phases.end("encode", compute),
                Event::Prefilled => phases.end("prefill", compute),
                _ => {}
            }
            answers.on_event(event);
        };
        let (options, cancel) = (&self.options, self.interrupt.cancel());
        let (engine, gazetteer, features) = (&self.engine, &self.gazetteer, &self.features);
        let located =
            locate(engine, gazetteer, &photo, options, features, cancel, &mut on_event).await?;
        phases.end("decode", compute);
        let seconds = seconds(&located);
        let answers = if samples == 1 { "answer" } else { "answers" };
        self.progress.note(&format!("{name}: {samples} {answers} in {seconds:.1} s"));
        Ok(located)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_outweighs_an_image_not_located() {
        use Status::{Failed, Located, NotLocated};
        assert_eq!(exit_of(&[Located, Located]), Exit::Success);
        assert_eq!(exit_of(&[Located, NotLocated]), Exit::NotFound);
        assert_eq!(exit_of(&[NotLocated, Failed, Located]), Exit::ImageFailed);
    }

    #[test]
    fn a_lost_device_ends_the_run_and_a_bad_image_does_not() {
        let lost = || globe_ops::Error::Device { reason: "lost".into() };
        assert!(matches!(Stop::from(Error::Ops(lost())), Stop::Fatal(_)));
        assert!(matches!(Stop::from(Error::Model(lost().into())), Stop::Fatal(_)));
        let image = globe_image::Error::AspectRatio { width: 1, height: 900 };
        assert!(matches!(Stop::from(Error::Image(image)), Stop::Image(_)));
        assert!(matches!(Stop::from(Error::Cancelled), Stop::Cancelled));
    }
}
