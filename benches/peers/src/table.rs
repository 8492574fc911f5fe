//! The table, in Markdown.

use crate::peer::Peer;
use crate::report::{Entry, Measured, Outcome, Report};
use crate::stats::Rate;

/// What was measured, a row per peer, and below it who could not and what globe gained.
pub fn markdown(report: &Report) -> String {
    let work = &report.work;
    let mut text = format!("{}\n\n", conditions(report));
    let images = work.image > 0;
    text += if images { "| | device | image, tokens/s |" } else { "| | device |" };
    text += " prefill, tokens/s |";
    for batch in &work.batch {
        text += &format!(" {}, tokens/s |", decode_name(*batch));
    }
    text += " load, s |\n|---|---|";
    text += &"---:|".repeat(work.batch.len() + 2 + usize::from(images));
    text.push('\n');
    for entry in &report.peers {
        text += &row(entry, work.batch.len(), images);
    }
    text.push('\n');
    for line in reasons(report).into_iter().chain(ratios(report)).chain(agreement(report)) {
        text += &format!("* {line}\n");
    }
    text
}

/// What the figures hold for, in one line.
pub fn conditions(report: &Report) -> String {
    let work = &report.work;
    let commit = report.commit.as_deref().unwrap_or("unknown");
    let (hash, changes) = commit.split_once('-').unwrap_or((commit, ""));
    let short = hash.get(..10).unwrap_or(hash);
    format!(
        "Shape {}, Q4_0, {}prompt of {} tokens, {} generated, median of {} ± half the quartile distance; {}, {} of {} threads; {}, commit {short}{}.",
        work.shape.name(),
        match work.image {
            0 => String::new(),
            side => format!("tower Q8_0 and image of {side} x {side} pixels, "),
        },
        work.prompt,
        work.tokens,
        work.repeats,
        report.cpu,
        work.threads,
        report.cpu_threads,
        report.date.get(..10).unwrap_or(&report.date),
        if changes.is_empty() { "" } else { " with changes" },
    )
}

/// What some answers at once are called.
pub fn decode_name(batch: usize) -> String {
    match batch {
        1 => "decode".to_string(),
        n => format!("decode, {n} at once"),
    }
}

fn row(entry: &Entry, batches: usize, images: bool) -> String {
    match &entry.outcome {
        Outcome::Measured(measured) => {
            let mut text = format!("| {} | {} |", entry.peer, cell(&measured.adapter));
            if images {
                text += &format!(" {} |", rate(measured.image.rate.as_ref()));
            }
            text += &format!(" {} |", rate(Some(&measured.prefill)));
            for decode in &measured.decode {
                text += &format!(" {} |", rate(decode.rate.as_ref()));
            }
            text + &format!(" {:.2} |\n", measured.load_seconds)
        }
        Outcome::NotRun(_) => {
            format!(
                "| {} | not run |{}\n",
                entry.peer,
                " – |".repeat(batches + 2 + usize::from(images))
            )
        }
    }
}

fn rate(rate: Option<&Rate>) -> String {
    rate.map_or_else(
        || "–".to_string(),
        |rate| format!("{} ± {}", figures(rate.tokens_per_second), figures(rate.spread())),
    )
}

/// Three digits that mean something.
pub fn figures(x: f64) -> String {
    match x {
        x if x >= 100.0 => format!("{x:.0}"),
        x if x >= 10.0 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}

/// Text that cannot end a cell or a line.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// Who or what is missing in the table, and why.
fn reasons(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for Entry { peer, outcome } in &report.peers {
        match outcome {
            Outcome::NotRun(reason) => lines.push(format!("{peer} did not run: {}", cell(reason))),
            Outcome::Measured(measured) => {
                if let Some(reason) = &measured.image.not_run {
                    lines.push(format!("{peer}, image, was not measured: {}", cell(reason)));
                }
                for decode in &measured.decode {
                    if let Some(reason) = &decode.not_run {
                        let name = decode_name(decode.batch);
                        lines.push(format!("{peer}, {name}, was not measured: {}", cell(reason)));
                    }
                }
            }
        }
    }
    lines
}

/// How many times as fast globe was as each other.
fn ratios(report: &Report) -> Vec<String> {
    let Some(globe) = report.measured(Peer::Globe) else {
        return Vec::new();
    };
    let against = |peer: Peer, other: &Measured| {
        let ratio = |ours: Rate, theirs: Rate| {
            format!("{}×", figures(ours.tokens_per_second / theirs.tokens_per_second))
        };
        let mut parts = Vec::new();
        if let (Some(ours), Some(theirs)) = (globe.image.rate, other.image.rate) {
            parts.push(format!("image {}", ratio(ours, theirs)));
        }
        parts.push(format!("prefill {}", ratio(globe.prefill, other.prefill)));
        for batch in &report.work.batch {
            if let (Some(ours), Some(theirs)) = (globe.decode(*batch), other.decode(*batch)) {
                parts.push(format!("{} {}", decode_name(*batch), ratio(ours, theirs)));
            }
        }
        format!("globe / {peer}: {}", parts.join("; "))
    };
    let others = Peer::ALL.into_iter().filter(|peer| *peer != Peer::Globe);
    others.filter_map(|peer| Some(against(peer, report.measured(peer)?))).collect()
}

/// Whether those that read one file computed one model.
fn agreement(report: &Report) -> Vec<String> {
    let answers: Vec<(Peer, &Vec<u32>)> = report
        .peers
        .iter()
        .filter_map(|e| Some((e.peer, e.outcome.measured()?.first_tokens.as_ref()?)))
        .collect();
    let Some(((first, expected), others)) = answers.split_first() else {
        return Vec::new();
    };
    others
        .iter()
        .map(|(peer, answer)| {
            let same = answer.iter().zip(*expected).take_while(|(a, b)| a == b).count();
            format!("{first} and {peer}: the first {same} of {} greedy tokens agree", answer.len())
        })
        .collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::args::Work;
    use crate::report::{Decode, Image};
    use crate::shape::Shape;

    /// A run in which everything happened.
    pub fn example() -> Report {
        let measured = |scale: f64, tokens: Option<Vec<u32>>, sixteen: Option<&str>| {
            let rate = |x: f64| Rate::new(16, vec![16.0 / x, 17.6 / x, 14.4 / x]);
            let (decode, many) = (rate(10.0 * scale), rate(40.0 * scale));
            let many = sixteen.map_or(Decode::new(16, many), |why| Decode::not(16, why));
            Outcome::Measured(Box::new(Measured {
                adapter: "a | b".into(),
                version: "v".into(),
                load_seconds: 1.25,
                image: match scale {
                    0.5 => Image::not("no tower"),
                    _ => Image::new(rate(20.0 * scale)),
                },
                prefill: rate(100.0 * scale),
                decode: vec![Decode::new(1, decode), many],
                first_tokens: tokens,
                report: None,
            }))
        };
        let outcomes = [
            measured(1.0, None, None),
            Outcome::NotRun("no device\nat all".into()),
            measured(4.0, Some(vec![1, 2, 3, 4]), None),
            measured(0.5, Some(vec![1, 2, 9, 4]), Some("it cannot")),
        ];
        let peers = Peer::ALL.into_iter().zip(outcomes);
        Report {
            date: "2026-01-02T03:04:05Z".into(),
            commit: Some("0123456789abcdef-dirty".into()),
            cpu: "A CPU".into(),
            cpu_threads: 8,
            compiled_for: vec!["avx2"],
            work: Work::example(Shape::Half),
            seed: 0,
            gguf_bytes: 1,
            peers: peers.map(|(peer, outcome)| Entry { peer, outcome }).collect(),
        }
    }

    #[test]
    fn every_peer_has_a_row_and_every_gap_a_reason() {
        let expected = "\
Shape 0.5b, Q4_0, tower Q8_0 and image of 224 x 224 pixels, prompt of 128 tokens, 32 generated, median of 5 ± half the quartile distance; \
A CPU, 2 of 8 threads; 2026-01-02, commit 0123456789 with changes.

| | device | image, tokens/s | prefill, tokens/s | decode, tokens/s | decode, 16 at once, tokens/s | load, s |
|---|---|---:|---:|---:|---:|---:|
| globe | a \\| b | 20.0 ± 1.00 | 100 ± 5.00 | 10.0 ± 0.50 | 40.0 ± 2.00 | 1.25 |
| llama.cpp Vulkan | not run | – | – | – | – | – |
| llama.cpp CPU | a \\| b | 80.0 ± 4.00 | 400 ± 20.0 | 40.0 ± 2.00 | 160 ± 8.00 | 1.25 |
| candle CPU | a \\| b | – | 50.0 ± 2.50 | 5.00 ± 0.25 | – | 1.25 |

* llama.cpp Vulkan did not run: no device at all
* candle CPU, image, was not measured: no tower
* candle CPU, decode, 16 at once, was not measured: it cannot
* globe / llama.cpp CPU: image 0.25×; prefill 0.25×; decode 0.25×; decode, 16 at once 0.25×
* globe / candle CPU: prefill 2.00×; decode 2.00×
* llama.cpp CPU and candle CPU: the first 2 of 4 greedy tokens agree
";
        assert_eq!(markdown(&example()), expected);
    }

    #[test]
    fn without_globe_and_without_answers_there_is_nothing_to_compare() {
        let mut report = example();
        for entry in &mut report.peers {
            entry.outcome = Outcome::NotRun("no".into());
        }
        let text = markdown(&report);
        assert_eq!(text.matches("did not run: no").count(), 4);
        assert!(!text.contains("globe /") && !text.contains("agree"));
    }
}
