//! Thinking and answer blocks, with tags in any case, missing or not closed.

const THINK_OPEN: &str = "<think>";
const THINK_CLOSE: &str = "</think>";
const ANSWER_OPEN: &str = "<answer>";
const ANSWER_CLOSE: &str = "</answer>";

/// A text by its tags.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    pub reasoning: &'a str,
    /// Content of the answer blocks, in order.
    pub answers: Vec<&'a str>,
    /// What remains without reasoning and tags.
    pub rest: &'a str,
    /// The thinking never ended, so `rest` is thought and not answer.
    pub cut_off: bool,
    /// Nothing but an optional thinking block and one answer block, tags in lower case.
    pub well_formed: bool,
}

pub(super) fn split(text: &str) -> Parts<'_> {
    // Keeps byte offsets: only ASCII changes.
    let lower = text.to_ascii_lowercase();
    let closed = lower.rfind(THINK_CLOSE);
    let opened = lower.find(THINK_OPEN);
    let after_thought = closed.map_or(0, |at| at + THINK_CLOSE.len());
    let answers = answer_blocks(text, &lower, after_thought);
    let thought_start = opened.map_or(0, |at| at + THINK_OPEN.len());
    let cut_off = opened.is_some() && closed.is_none() && answers.is_empty();
    let first_answer = lower[after_thought..].find(ANSWER_OPEN).map(|at| at + after_thought);
    let reasoning_end = match (closed, first_answer) {
        (Some(at), _) => at,
        (None, Some(at)) => at,
        (None, None) if opened.is_some() => text.len(),
        (None, None) => 0,
    };
    let rest_start = if closed.is_some() { after_thought } else { thought_start };
    Parts {
        reasoning: text.get(thought_start..reasoning_end).unwrap_or_default(),
        well_formed: answers.len() == 1 && is_well_formed(text),
        answers,
        rest: text.get(rest_start..).unwrap_or_default(),
        cut_off,
    }
}

/// An opening tag starts a block and ends the one before; a closing tag alone ends one too.
fn answer_blocks<'a>(text: &'a str, lower: &str, from: usize) -> Vec<&'a str> {
    let mut blocks = Vec::new();
    let mut start = None;
    let mut at = from;
    while let Some(found) = lower[at..].find('<') {
        let tag = at + found;
        let after = if lower[tag..].starts_with(ANSWER_OPEN) {
            blocks.extend(start.replace(tag + ANSWER_OPEN.len()).map(|s| &text[s..tag]));
            tag + ANSWER_OPEN.len()
        } else if lower[tag..].starts_with(ANSWER_CLOSE) {
            let orphan = blocks.is_empty().then_some(from);
            blocks.extend(start.take().or(orphan).map(|s| &text[s..tag]));
            tag + ANSWER_CLOSE.len()
        } else {
            tag + 1
        };
        at = after;
    }
    blocks.extend(start.map(|s| &text[s..]));
    blocks
}

fn is_well_formed(text: &str) -> bool {
    let text = text.trim();
    let after_thought = match text.strip_prefix(THINK_OPEN) {
        Some(rest) => match rest.split_once(THINK_CLOSE) {
            Some((_, rest)) => rest.trim_start(),
            None => return false,
        },
        None => text,
    };
    after_thought
        .strip_prefix(ANSWER_OPEN)
        .and_then(|rest| rest.strip_suffix(ANSWER_CLOSE))
        .is_some_and(|inner| !inner.contains('<'))
}
