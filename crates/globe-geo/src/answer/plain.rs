//! A place without labels: `City, Country`.

use super::{Fields, clean};
use crate::refusal::is_refusal;

/// What an unlabelled text may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wording {
    /// Only a place is expected, so a single word counts too.
    Bare,
    /// Running text: its last line, if that is a place or ends in one.
    Sentences,
    /// Thought that was cut off: nothing is concluded.
    Never,
}

/// Names are short; more words than this in one part are a sentence.
const MAX_NAME_WORDS: usize = 5;
/// A whole answer this short may be a bare name.
const MAX_BARE_BYTES: usize = 64;

/// The place in an unlabelled text.
pub(super) fn fields(text: &str, wording: Wording) -> Fields {
    let Some(line) = text.lines().rev().find(|l| clean(l).is_some()) else {
        return Fields { refused: is_refusal(text), ..Fields::default() };
    };
    if wording == Wording::Never || is_refusal(line) {
        return Fields::default();
    }
    let only_line = text.trim().len() == line.trim().len();
    let bare = wording == Wording::Bare || (only_line && line.len() <= MAX_BARE_BYTES);
    let concluded = in_sentence(line);
    if !concluded.is_empty() {
        return concluded;
    }
    let found = parts(line);
    let is_pair = found.country.is_some() && found.city.is_some();
    if is_pair || bare { found } else { Fields::default() }
}

/// `City`, `City, Country` or `City, Region, Country`; a single name stands as the city, since the
/// gazetteer also knows countries by it.
pub(super) fn parts(text: &str) -> Fields {
    let parts: Vec<&str> = text.split([',', '，', '、', ';', '\n']).map(str::trim).collect();
    if parts.len() > 4 || !parts.iter().all(|p| is_name(p)) {
        return Fields::default();
    }
    let names: Vec<String> = parts.into_iter().filter_map(clean).collect();
    match &names[..] {
        [city] => Fields { city: Some(city.clone()), ..Fields::default() },
        [city, country] => {
            Fields { city: Some(city.clone()), country: Some(country.clone()), ..Fields::default() }
        }
        [city, .., region, country] => Fields {
            city: Some(city.clone()),
            region: Some(region.clone()),
            country: Some(country.clone()),
            ..Fields::default()
        },
        _ => Fields::default(),
    }
}

fn is_name(part: &str) -> bool {
    part.split_whitespace().count() <= MAX_NAME_WORDS && !part.contains(['<', '>', '{', '}'])
}

/// `This is probably Bonn, Germany.`: the names after the last lead-in, both capitalised.
fn in_sentence(line: &str) -> Fields {
    let sentence = line.trim().trim_end_matches(['.', '!', '*', '"']);
    // Not " of ": the Isle of Man is a name.
    let leads = [" in ", " is ", " be ", " near ", " from ", " likely ", " probably ", ": "];
    let Some(start) = leads.iter().filter_map(|l| Some(sentence.rfind(l)? + l.len())).max() else {
        return Fields::default();
    };
    let found = parts(&sentence[start..]);
    let capital = |name: &Option<String>| {
        name.as_ref().and_then(|n| n.chars().next()).is_some_and(|c| !c.is_lowercase())
    };
    if capital(&found.city) && capital(&found.country) { found } else { Fields::default() }
}
