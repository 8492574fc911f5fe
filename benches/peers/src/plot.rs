//! The plot: bars per peer, a group per measurement, each group to its own scale.

use std::fmt::Write;

use crate::peer::Peer;
use crate::report::{Entry, Outcome, Report};
use crate::stats::Rate;
use crate::table::{conditions, decode_name, figures};

/// Sizes, all in pixels.
const WIDTH: f64 = 860.0;
const LEFT: f64 = 170.0;
const LONGEST: f64 = 520.0;
const BAR: f64 = 20.0;
const STRIDE: f64 = 28.0;
const TOP: f64 = 110.0;
const GROUP_TITLE: f64 = 30.0;
const GROUP_GAP: f64 = 22.0;
/// Characters of a line of small print.
const LINE: usize = 130;

const STYLE: &str = "\
text { font-family: system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2933; }
.title { font-size: 21px; font-weight: 600; }
.small { font-size: 12px; fill: #616e7c; }
.group { font-size: 15px; font-weight: 600; }
.name, .value { font-size: 13px; }
.value { font-variant-numeric: tabular-nums; }
.none { font-size: 12px; fill: #9aa5b1; font-style: italic; }
.spread { stroke: #1f2933; stroke-width: 1.2; stroke-opacity: 0.55; }
.axis { stroke: #cbd2d9; }";

/// What a group of bars shows.
#[derive(Clone, Copy)]
enum Shown {
    Image,
    Prefill,
    /// Answers at once.
    Decode(usize),
}

/// Draws a report.
pub fn svg(report: &Report) -> String {
    let mut groups = Vec::new();
    if report.work.image > 0 {
        groups.push(("Image".to_string(), Shown::Image));
    }
    groups.push(("Prefill".to_string(), Shown::Prefill));
    for batch in &report.work.batch {
        groups.push((capital(&decode_name(*batch)), Shown::Decode(*batch)));
    }
    let rows = report.peers.len() as f64;
    let group_height = GROUP_TITLE + rows * STRIDE + GROUP_GAP;
    let height = TOP + groups.len() as f64 * group_height + 8.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>Tokens per second of globe and its peers</title>\n<style>\n{STYLE}\n</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    text(&mut svg, "title", 24.0, 38.0, "start", "Tokens per second, more is better");
    for (i, line) in
        wrapped(&format!("{}{}", conditions(report), devices(report))).iter().enumerate()
    {
        text(&mut svg, "small", 24.0, 60.0 + 17.0 * i as f64, "start", line);
    }
    for (i, (name, shown)) in groups.iter().enumerate() {
        group(&mut svg, report, name, *shown, TOP + i as f64 * group_height);
    }
    svg + "</svg>\n"
}

/// What the GPU programs computed on: a bar means nothing without.
fn devices(report: &Report) -> String {
    let device = |peer: Peer| Some(format!(" {peer} on {}.", report.measured(peer)?.adapter));
    [Peer::Globe, Peer::LlamaVulkan].into_iter().filter_map(device).collect()
}

/// One measurement of all peers.
fn group(svg: &mut String, report: &Report, name: &str, shown: Shown, top: f64) {
    let rates: Vec<Option<Rate>> = report.peers.iter().map(|entry| rate(entry, shown)).collect();
    let reach = |rate: &Rate| rate.tokens_per_second + rate.spread();
    let longest = rates.iter().flatten().map(reach).fold(f64::MIN_POSITIVE, f64::max);
    text(svg, "group", 24.0, top + 18.0, "start", name);
    for (i, (entry, rate)) in report.peers.iter().zip(&rates).enumerate() {
        let y = top + GROUP_TITLE + i as f64 * STRIDE;
        let middle = y + BAR / 2.0 + 4.5;
        text(svg, "name", LEFT - 10.0, middle, "end", &entry.peer.to_string());
        match rate {
            Some(rate) => bar(svg, entry.peer, rate, LONGEST / longest, y),
            None => text(svg, "none", LEFT + 8.0, middle, "start", &why_not(entry, shown)),
        }
    }
    let bottom = top + GROUP_TITLE + rates.len() as f64 * STRIDE - STRIDE + BAR + 4.0;
    line(svg, "axis", [LEFT, top + GROUP_TITLE - 4.0, LEFT, bottom]);
}

/// A bar with its spread and its number.
fn bar(svg: &mut String, peer: Peer, rate: &Rate, pixels: f64, y: f64) {
    let colour = match peer {
        Peer::Globe => "#0b7285",
        Peer::LlamaVulkan => "#e8872b",
        Peer::LlamaCpu => "#f4bf75",
        Peer::Candle => "#b08bbb",
    };
    let width = (rate.tokens_per_second * pixels).max(1.0);
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>"
    );
    let (spread, middle) = (rate.spread() * pixels, y + BAR / 2.0);
    if spread >= 1.0 {
        let [low, high] = [-spread, spread].map(|x| LEFT + width + x);
        line(svg, "spread", [low, middle, high, middle]);
        for x in [low, high] {
            line(svg, "spread", [x, middle - 4.0, x, middle + 4.0]);
        }
    }
    let number = figures(rate.tokens_per_second);
    text(svg, "value", LEFT + width + spread + 8.0, middle + 4.5, "start", &number);
}

fn rate(entry: &Entry, shown: Shown) -> Option<Rate> {
    let measured = entry.outcome.measured()?;
    match shown {
        Shown::Image => measured.image.rate,
        Shown::Prefill => Some(measured.prefill),
        Shown::Decode(batch) => measured.decode(batch),
    }
}

/// Why there is no bar, as far as it fits.
fn why_not(entry: &Entry, shown: Shown) -> String {
    let reason = match (&entry.outcome, shown) {
        (Outcome::NotRun(reason), _) => Some(reason),
        (Outcome::Measured(measured), Shown::Decode(batch)) => {
            let decode = measured.decode.iter().find(|decode| decode.batch == batch);
            decode.and_then(|decode| decode.not_run.as_ref())
        }
        (Outcome::Measured(measured), Shown::Image) => measured.image.not_run.as_ref(),
        (Outcome::Measured(_), Shown::Prefill) => None,
    };
    let reason = reason.map_or("", String::as_str);
    let mut text: String = reason.chars().take(90).collect();
    if text.len() < reason.len() {
        text += " …";
    }
    format!("not measured: {text}")
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn line(svg: &mut String, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
    let _ = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn escaped(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// Lines that fit.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < LINE => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::example;

    #[test]
    fn every_figure_has_a_bar_and_a_label_and_every_gap_its_reason() {
        let svg = svg(&example());
        assert_eq!(svg.matches("<rect x=").count(), 2 + 3 + 3 + 2);
        assert_eq!(svg.matches("class=\"value\"").count(), 10);
        assert_eq!(svg.matches("not measured: no device at all").count(), 4);
        assert_eq!(svg.matches("not measured: no tower").count(), 1);
        assert_eq!(svg.matches("not measured: it cannot").count(), 1);
        assert!(svg.contains("globe on a | b."));
        for group in ["Image", "Prefill", "Decode", "Decode, 16 at once"] {
            assert!(svg.contains(&format!(">{group}</text>")), "{group}");
        }
    }

    #[test]
    fn the_longest_bar_fills_its_group_and_others_are_in_proportion() {
        let svg = svg(&example());
        let widths: Vec<f64> = svg
            .lines()
            .filter(|line| line.starts_with("<rect x="))
            .filter_map(|line| line.split("width=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        let longest = LONGEST / 1.05; // its spread has to fit as well
        assert_eq!(widths.len(), 10);
        for (width, share) in widths.iter().zip([0.25, 1.0, 0.25, 1.0, 0.125]) {
            assert!((width - share * longest).abs() < 0.1, "{width} is not {share} of {longest}");
        }
    }

    #[test]
    fn text_cannot_break_the_picture() {
        let mut report = example();
        report.cpu = "<a> & b".into();
        assert!(svg(&report).contains("&lt;a&gt; &amp; b"));
    }
}
