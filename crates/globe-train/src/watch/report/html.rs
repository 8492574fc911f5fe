//! The page: one file, no script from elsewhere.

use std::{collections::BTreeMap, fmt::Write};

use super::{Entry, EntryAnswer};
use crate::watch::lines::short;

/// Curves shown first; the others fold away.
const FIRST: &[&str] = &[
    "reward",
    "kl",
    "entropy",
    "clip_ratio/region_mean",
    "completions/mean_length",
    "loss",
    "eval_loss",
    "grad_norm",
];

const WIDTH: f64 = 260.0;
const HEIGHT: f64 = 90.0;

/// Points drawn per curve.
const MAX_POINTS: usize = 500;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

pub(super) fn page(
    curves: &BTreeMap<String, Vec<(f64, f64)>>,
    entries: &[Entry],
    n_entries: usize,
) -> String {
    let mut order: Vec<(&String, &Vec<(f64, f64)>)> = curves.iter().collect();
    order.sort_by_key(|(name, _)| rank(name));
    let charts = |first: bool| -> String {
        let shown = order.iter().filter(|(n, _)| (rank(n) <= FIRST.len()) == first);
        shown.map(|(n, c)| chart(n, c)).collect()
    };
    let last = curves.values().filter_map(|c| c.last()).map(|p| p.0).fold(0.0, f64::max);
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>globe: step {last}</title>\
         <style>{STYLE}</style></head><body><h1>Training report <small>step {last}</small></h1>\
         <section class=\"charts\">{}</section>\
         <details><summary>All numbers</summary><section class=\"charts\">{}</section></details>",
        charts(true),
        charts(false),
    );
    let _ = write!(
        out,
        "<h2>Sample answers <small>{} of {n_entries} photos, newest first</small></h2>\
         <p class=\"tools\"><input id=\"find\" type=\"search\" placeholder=\"Find in answers, names, \
         places\" aria-label=\"Find\"> <label><input id=\"all\" type=\"checkbox\"> open all \
         answers</label> <span id=\"count\"></span></p>",
        entries.len(),
    );
    entries.iter().rev().for_each(|entry| sample(&mut out, entry));
    let _ = writeln!(out, "<script>{SCRIPT}</script></body></html>");
    out
}

/// The reward, its parts, the other important curves, the rest.
fn rank(name: &str) -> usize {
    if name.starts_with("rewards/") && name.ends_with("/mean") {
        return 1;
    }
    match FIRST.iter().position(|first| *first == name) {
        Some(0) => 0,
        Some(i) => i + 1,
        None => usize::MAX,
    }
}

/// A small line chart with its last value.
fn chart(name: &str, curve: &[(f64, f64)]) -> String {
    let (Some(first), Some(last)) = (curve.first(), curve.last()) else {
        return String::new();
    };
    let (least, most) =
        curve.iter().fold((f64::MAX, f64::MIN), |(least, most), p| (least.min(p.1), most.max(p.1)));
    let (span_x, span_y) = ((last.0 - first.0).max(1.0), (most - least).max(1e-12));
    let every = curve.len().div_ceil(MAX_POINTS).max(1);
    let points: Vec<String> = curve
        .iter()
        .step_by(every)
        .chain(std::iter::once(last))
        .map(|(x, y)| {
            let px = (x - first.0) / span_x * WIDTH;
            let py = HEIGHT - (y - least) / span_y * HEIGHT;
            format!("{px:.1},{py:.1}")
        })
        .collect();
    format!(
        "<figure><figcaption>{} <b>{}</b></figcaption>\
         <svg viewBox=\"-4 -4 {} {}\" role=\"img\" aria-label=\"{} from {} to {}\">\
         <polyline points=\"{}\"/></svg>\
         <div class=\"range\"><span>{} … {}</span><span>steps {} to {}</span></div></figure>",
        escape(name),
        short(last.1),
        WIDTH + 8.0,
        HEIGHT + 8.0,
        escape(name),
        short(least),
        short(most),
        points.join(" "),
        short(least),
        short(most),
        first.0,
        last.0,
    )
}

fn sample(out: &mut String, entry: &Entry) {
    let mut order: Vec<&EntryAnswer> = entry.answers.iter().collect();
    let total = |a: &EntryAnswer| a.total.unwrap_or(f64::MIN);
    order.sort_by(|a, b| total(b).total_cmp(&total(a)).then_with(|| a.text.cmp(&b.text)));
    let _ = write!(
        out,
        "<article><div class=\"photo\"><img loading=\"lazy\" src=\"{}\" alt=\"\">\
         <p><b>{}</b><br>{}<br><small>after step {}</small></p></div><div class=\"answers\">",
        escape(&entry.photo),
        escape(&entry.truth),
        escape(&entry.id),
        entry.step,
    );
    let same = |a: &&EntryAnswer, b: &&EntryAnswer| (&a.text, &a.parts) == (&b.text, &b.parts);
    for (i, alike) in order.chunk_by(same).enumerate() {
        answer(out, alike[0], &entry.names, alike.len(), i == 0);
    }
    out.push_str("</div></article>");
}

/// Folded, the best one open; answers that are alike appear once.
fn answer(out: &mut String, answer: &EntryAnswer, names: &[String], times: usize, open: bool) {
    let total = answer.total.map_or_else(|| "-".to_owned(), short);
    let side = if answer.advantage >= 0.0 { "up" } else { "down" };
    let _ = write!(
        out,
        "<details class=\"answer\"{}><summary><b class=\"{side}\">{total}</b> \
         <span class=\"advantage\">advantage {}</span>",
        if open { " open" } else { "" },
        short(answer.advantage),
    );
    for (name, part) in names.iter().zip(&answer.parts) {
        let width = part.unwrap_or(0.0).clamp(0.0, 1.0) * 100.0;
        let value = part.map_or_else(|| "none".to_owned(), short);
        let _ = write!(
            out,
            "<span class=\"part\"><span class=\"bar\"><i style=\"width:{width:.0}%\"></i></span>{} \
             {value}</span>",
            escape(name),
        );
    }
    let cut = if answer.truncated { ", cut off" } else { "" };
    let times = if times > 1 { format!("{times} alike, ") } else { String::new() };
    let _ = write!(
        out,
        "<span class=\"tokens\">{times}{} tokens{cut}</span></summary><pre>{}</pre></details>",
        answer.tokens,
        escape(&answer.text),
    );
}

/// Text for an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
