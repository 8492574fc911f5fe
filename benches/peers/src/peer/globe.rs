//! This project's own program: `globe bench`.

use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use super::{Job, Peer};
use crate::args::Work;
use crate::error::{Error, Result};
use crate::process::json_of;
use crate::report::{Decode, Image, Measured};
use crate::stats::{Rate, Stats};

/// What is read of its report.
#[derive(Deserialize)]
struct Bench {
    globe: String,
    adapter: String,
    kernels: String,
    load_seconds: f64,
    image: Option<Timed>,
    prefill: Timed,
    decode: Vec<TimedBatch>,
}

#[derive(Deserialize)]
struct Timed {
    seconds: Stats,
    tokens_per_second: f64,
}

impl Timed {
    fn rate(self) -> Rate {
        Rate { seconds: self.seconds, tokens_per_second: self.tokens_per_second }
    }
}

#[derive(Deserialize)]
struct TimedBatch {
    batch: usize,
    seconds: Stats,
    tokens_per_second: f64,
}

/// Runs it and reads its report.
///
/// # Errors
/// [`Error::Start`] and [`Error::Ended`] if it does not run, [`Error::Answer`] and
/// [`Error::Missing`] if its report is not of this version.
pub fn measure(job: &Job) -> Result<Measured> {
    let mut command = Command::new(&job.globe);
    command.arg("bench").args(arguments(&job.work)).args(["--device", &job.globe_device]);
    let report: Value = json_of(command, "globe bench")?;
    read(report, &job.work)
}

fn arguments(work: &Work) -> Vec<String> {
    let batch: Vec<String> = work.batch.iter().map(usize::to_string).collect();
    let pairs = [
        ("--shape", work.shape.name().to_string()),
        ("--bits", "4".to_string()),
        ("--prompt", work.prompt.to_string()),
        ("--tokens", work.tokens.to_string()),
        ("--batch", batch.join(",")),
        ("--image", work.image.to_string()),
        ("--repeats", work.repeats.to_string()),
    ];
    let mut arguments: Vec<String> =
        pairs.into_iter().flat_map(|(name, value)| [name.to_string(), value]).collect();
    arguments.push("--json".to_string());
    arguments
}

fn read(report: Value, work: &Work) -> Result<Measured> {
    let bench: Bench = serde_json::from_value(report.clone())
        .map_err(|source| Error::Answer { program: "globe bench".to_string(), source })?;
    let decode = work.batch.iter().map(|batch| {
        let found = bench.decode.iter().find(|decode| decode.batch == *batch);
        let found =
            found.ok_or(Error::Missing { peer: Peer::Globe, what: "one of the batches" })?;
        let (seconds, tokens_per_second) = (found.seconds, found.tokens_per_second);
        Ok(Decode::new(*batch, Rate { seconds, tokens_per_second }))
    });
    let image = match (work.image, bench.image) {
        (0, _) => Image::default(),
        (_, Some(timed)) => Image::new(timed.rate()),
        (_, None) => return Err(Error::Missing { peer: Peer::Globe, what: "the image" }),
    };
    Ok(Measured {
        decode: decode.collect::<Result<_>>()?,
        adapter: format!("{}, {} kernels", bench.adapter, bench.kernels),
        version: format!("globe {}", bench.globe),
        load_seconds: bench.load_seconds,
        image,
        prefill: bench.prefill.rate(),
        first_tokens: None,
        report: Some(report),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::shape::Shape;

    fn report() -> Value {
        let seconds = json!({ "median": 2.0, "spread": 0.1, "best": 1.9 });
        json!({
            "globe": "0.1.0", "adapter": "gpu", "kernels": "lanes", "load_seconds": 1.0,
            "image": { "tokens": 4, "seconds": seconds, "tokens_per_second": 2.0 },
            "prefill": { "tokens": 8, "seconds": seconds, "tokens_per_second": 4.0 },
            "decode": [
                { "batch": 1, "seconds": seconds, "tokens_per_second": 0.5, "more": 1 },
                { "batch": 16, "seconds": seconds, "tokens_per_second": 8.0 }
            ]
        })
    }

    #[test]
    fn its_report_is_read_and_kept_whole() {
        let measured = read(report(), &Work::example(Shape::Half)).unwrap();
        assert_eq!(measured.prefill.tokens_per_second, 4.0);
        assert_eq!(measured.image.rate.unwrap().tokens_per_second, 2.0);
        let rates: Vec<f64> =
            measured.decode.iter().filter_map(|d| Some(d.rate?.tokens_per_second)).collect();
        assert_eq!(rates, [0.5, 8.0]);
        assert_eq!(measured.report, Some(report()));
    }

    /// `cargo xtask test peers` names the program.
    #[test]
    fn the_report_of_the_program_of_today_is_read() {
        let globe = std::env::var_os("GLOBE").expect("name the program `globe` in GLOBE");
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/window56");
        let mut command = Command::new(globe);
        command
            .args(["bench", "--model", model, "--prompt", "8", "--tokens", "4", "--batch", "1,3"]);
        command.args(["--image", "84", "--repeats", "1", "--json"]);
        let report = json_of(command, "globe bench").unwrap();
        let work = Work { batch: vec![1, 3], ..Work::example(Shape::Half) };
        let measured = read(report, &work).unwrap();
        assert_eq!(measured.decode.len(), 2);
        assert!(measured.prefill.tokens_per_second > 0.0 && measured.load_seconds > 0.0);
        assert!(measured.image.rate.unwrap().tokens_per_second > 0.0);
    }

    #[test]
    fn a_report_of_another_version_is_an_error() {
        let work = Work { batch: vec![4], ..Work::example(Shape::Half) };
        assert!(matches!(read(report(), &work), Err(Error::Missing { .. })));
        assert!(matches!(read(json!({ "globe": "0.1.0" }), &work), Err(Error::Answer { .. })));
        let mut without = report();
        without["image"] = Value::Null;
        let work = Work::example(Shape::Half);
        assert!(matches!(read(without, &work), Err(Error::Missing { what: "the image", .. })));
    }

    #[test]
    fn it_is_asked_for_the_same_work() {
        let arguments = arguments(&Work::example(Shape::Three)).join(" ");
        assert_eq!(
            arguments,
            "--shape 3b --bits 4 --prompt 128 --tokens 32 --batch 1,16 --image 224 --repeats 5 --json"
        );
    }
}
