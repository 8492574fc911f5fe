//! A model's text to the names in it, leniently, saying how it was read.

mod coordinates;
mod json;
mod labels;
mod plain;
mod tags;

use serde::Serialize;

use crate::{PlaceQuery, refusal::is_blank, refusal::is_refusal};

/// What a model's answer says.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ParsedAnswer {
    /// Text of the thinking block, or what stands before the answer.
    pub reasoning: Option<String>,
    /// Country as written.
    pub country: Option<String>,
    /// Region or state as written.
    pub region: Option<String>,
    /// City as written.
    pub city: Option<String>,
    /// Latitude in degrees, if the model gave a position.
    pub lat: Option<f64>,
    /// Longitude in degrees, if the model gave a position.
    pub lon: Option<f64>,
    /// How the answer was read.
    pub status: ParseStatus,
}

impl ParsedAnswer {
    /// The names as a gazetteer query.
    pub fn query(&self) -> PlaceQuery<'_> {
        PlaceQuery {
            country: self.country.as_deref(),
            region: self.region.as_deref(),
            city: self.city.as_deref(),
        }
    }
}

/// How an answer was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParseStatus {
    /// As the prompt asks: an answer block of the two lines `country:` and `city:`, after at most a
    /// thinking block.
    Strict,
    /// A place in any other layout.
    Lenient,
    /// The model says that it cannot tell.
    Refused,
    /// Neither a place nor a refusal.
    #[default]
    NoAnswer,
}

impl ParseStatus {
    /// True when a place was read.
    pub fn is_parsed(self) -> bool {
        matches!(self, Self::Strict | Self::Lenient)
    }
}

/// Names and position found in a stretch of text.
#[derive(Debug, Clone, Default, PartialEq)]
struct Fields {
    country: Option<String>,
    region: Option<String>,
    city: Option<String>,
    position: Option<(f64, f64)>,
    /// A field was given as unknown.
    refused: bool,
}

impl Fields {
    fn is_empty(&self) -> bool {
        self.country.is_none()
            && self.region.is_none()
            && self.city.is_none()
            && self.position.is_none()
    }
}

/// A name without decoration; none if it names nothing, has no letter, or holds the mark of bytes
/// that were no text.
fn clean(value: &str) -> Option<String> {
    let bare = value.trim_matches(|c: char| {
        c.is_whitespace() || c.is_control() || "*_`\"'“”«»<>{}[]|.,;:!#=-–—：，。".contains(c)
    });
    let is_text = bare.chars().any(char::is_alphabetic) && !bare.contains('\u{fffd}');
    (is_text && !is_blank(bare)).then(|| bare.to_owned())
}

/// Reads a model's answer. Accepts any text and never fails; time is linear in its length.
///
/// In order: the last `<answer>` block that names a place, else the text after the thinking. In it
/// a JSON object, else labelled fields (`country: X`, `**Ville** : Y`, `国家：X`, one line or
/// several), else a bare `City, Country`.
///
/// ```
/// use globe_geo::{ParseStatus, parse_answer};
///
/// let answer = parse_answer("<think>Rhine.</think><answer>country: Germany\ncity: Bonn</answer>");
/// assert_eq!(answer.status, ParseStatus::Strict);
/// assert_eq!(answer.city.as_deref(), Some("Bonn"));
/// ```
pub fn parse_answer(text: &str) -> ParsedAnswer {
    let parts = tags::split(text);
    let blocks = parts.answers.iter().rev().filter(|b| !b.trim().is_empty());
    let mut refused = false;
    for block in blocks {
        let fields = fields_of(block, labels::Order::First, plain::Wording::Bare);
        if !fields.is_empty() {
            let strict = parts.well_formed && labels::is_contract(block) && !fields.refused;
            let status = if strict { ParseStatus::Strict } else { ParseStatus::Lenient };
            return answer(&parts, fields, status);
        }
        refused |= fields.refused || is_refusal(block);
    }
    if refused {
        return answer(&parts, Fields::default(), ParseStatus::Refused);
    }
    let wording = if parts.cut_off { plain::Wording::Never } else { plain::Wording::Sentences };
    let fields = fields_of(parts.rest, labels::Order::Last, wording);
    let refused = fields.refused || (!parts.cut_off && is_refusal(parts.rest));
    let status = match (fields.is_empty(), refused) {
        (false, _) => ParseStatus::Lenient,
        (true, true) => ParseStatus::Refused,
        (true, false) => ParseStatus::NoAnswer,
    };
    answer(&parts, fields, status)
}

fn answer(parts: &tags::Parts<'_>, fields: Fields, status: ParseStatus) -> ParsedAnswer {
    let reasoning = parts.reasoning.trim();
    ParsedAnswer {
        reasoning: (!reasoning.is_empty()).then(|| reasoning.to_owned()),
        country: fields.country,
        region: fields.region,
        city: fields.city,
        lat: fields.position.map(|p| p.0),
        lon: fields.position.map(|p| p.1),
        status,
    }
}

fn fields_of(text: &str, order: labels::Order, wording: plain::Wording) -> Fields {
    let from_json = json::fields(text).filter(|f| !f.is_empty() || f.refused);
    let labelled = from_json.unwrap_or_else(|| labels::fields(text, order));
    if !labelled.is_empty() || labelled.refused {
        return labelled;
    }
    plain::fields(text, wording)
}

#[cfg(test)]
mod tests;
