//! What an answer commits itself to, read so that hedging does not pay.

use globe_geo::{ParseStatus, ParsedAnswer, parse_answer};

const THINK: [&str; 2] = ["<think>", "</think>"];
const ANSWER: [&str; 2] = ["<answer>", "</answer>"];

/// An answer block longer than this is a list or a story.
const MAX_BLOCK_BYTES: usize = 240;

/// Thought and commitment of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The text of the one thinking block, if it is closed, not empty, and comes first.
    pub thought: Option<String>,
    /// The names in the one answer block after the thought; `None` for no block, for two, for one
    /// before the thought, and for one that names two countries or cities under their labels.
    pub place: Option<ParsedAnswer>,
    /// The text is one thinking block and one answer block of the lines `country:` and `city:`,
    /// and nothing else.
    pub well_formed: bool,
}

/// Reads an answer for scoring. Never fails; linear in the length of the text.
///
/// Stricter than [`globe_geo::parse_answer`]: a user is helped by a lenient reading, a policy would
/// learn to exploit it. The one-line form `country: X, city: Y` is read.
pub fn read_answer(text: &str) -> Answer {
    let lower = text.to_ascii_lowercase();
    let thought = only_block(&lower, THINK).map(|(start, end)| text[start..end].trim());
    let thought_end = lower.rfind(THINK[1]).map_or(0, |at| at + THINK[1].len());
    let untidy = lower.contains(THINK[0]) != lower.contains(THINK[1]);
    let block = only_block(&lower, ANSWER).filter(|&(start, _)| start >= thought_end && !untidy);
    let place = block.map(|(start, end)| &text[start..end]).and_then(place_of);
    let thought = thought
        .filter(|t| !t.is_empty())
        .filter(|_| lower.find(ANSWER[0]).is_none_or(|at| at >= thought_end));
    let strict = parse_answer(text).status == ParseStatus::Strict;
    Answer {
        well_formed: strict && thought.is_some() && place.is_some(),
        thought: thought.map(str::to_owned),
        place,
    }
}

/// Where the content of the block stands, if each of its tags occurs exactly once and in order.
fn only_block(lower: &str, [open, close]: [&str; 2]) -> Option<(usize, usize)> {
    let once = |tag: &str| lower.find(tag).filter(|_| lower.matches(tag).count() == 1);
    let (start, end) = (once(open)? + open.len(), once(close)?);
    (start <= end).then_some((start, end))
}

fn place_of(block: &str) -> Option<ParsedAnswer> {
    let lower = block.to_lowercase();
    let repeated = ["country", "city"].iter().any(|label| n_labels(&lower, label) > 1);
    if repeated || block.len() > MAX_BLOCK_BYTES {
        return None;
    }
    let answer = parse_answer(&format!("<answer>{block}</answer>"));
    answer.status.is_parsed().then_some(answer)
}

/// How often `label` stands before a colon.
fn n_labels(lower: &str, label: &str) -> usize {
    let after = |at: usize| lower[at + label.len()..].trim_start_matches(['*', '_', ' ', '"']);
    lower.match_indices(label).filter(|&(at, _)| after(at).starts_with([':', '：'])).count()
}
