//! A JSON object with the fields, bare, fenced or inside other text.

use serde_json::{Map, Value};

use super::{Fields, clean, coordinates, plain};
use crate::{fold, refusal::is_refusal};

/// Deeper objects are not answers.
const MAX_DEPTH: usize = 4;

/// Fields of the object between the first `{` and the last `}`; none if that is no object.
pub(super) fn fields(text: &str) -> Option<Fields> {
    let start = text.find('{')?;
    let end = text.rfind('}')?;
    let object: Map<String, Value> = serde_json::from_str(text.get(start..=end)?).ok()?;
    let mut found = Fields::default();
    read(&object, &mut found, MAX_DEPTH);
    Some(found)
}

fn read(object: &Map<String, Value>, found: &mut Fields, depth: usize) {
    let (mut lat, mut lon) = (None, None);
    for (key, value) in object {
        match fold(key).as_str() {
            "country" | "country name" | "nation" => {
                name(value, &mut found.country, &mut found.refused)
            }
            "region" | "state" | "province" | "admin1" | "state province" => {
                name(value, &mut found.region, &mut found.refused);
            }
            "city" | "city name" | "town" => name(value, &mut found.city, &mut found.refused),
            "lat" | "latitude" => lat = number(value),
            "lon" | "lng" | "long" | "longitude" => lon = number(value),
            "coordinates" => found.position = found.position.or_else(|| pair(value)),
            "location" | "place" | "answer" | "result" => nested(value, found, depth),
            _ => {}
        }
    }
    let both = lat.zip(lon).and_then(|(lat, lon)| coordinates::checked(lat, lon));
    found.position = found.position.or(both);
}

fn nested(value: &Value, found: &mut Fields, depth: usize) {
    match value {
        Value::Object(object) if depth > 0 => read(object, found, depth - 1),
        Value::String(text) if found.country.is_none() && found.city.is_none() => {
            let refused = found.refused || is_refusal(text);
            *found = Fields { refused, ..plain::parts(text) };
        }
        _ => {}
    }
}

fn name(value: &Value, slot: &mut Option<String>, refused: &mut bool) {
    let Value::String(text) = value else {
        *refused |= value.is_null();
        return;
    };
    *refused |= is_refusal(text);
    if slot.is_none() {
        *slot = clean(text);
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => coordinates::number(text),
        _ => None,
    }
}

fn pair(value: &Value) -> Option<(f64, f64)> {
    match value {
        Value::String(text) => coordinates::pair(text),
        Value::Array(items) => match &items[..] {
            [lat, lon] => coordinates::checked(number(lat)?, number(lon)?),
            _ => None,
        },
        Value::Object(object) => {
            let get = |names: [&str; 3]| names.iter().find_map(|n| number(object.get(*n)?));
            let lat = get(["lat", "latitude", "y"])?;
            coordinates::checked(lat, get(["lon", "lng", "longitude"])?)
        }
        _ => None,
    }
}
