//! `globe geocode`.

use anyhow::Context;
use globe_geo::{Gazetteer, Place};
use serde::Serialize;

use crate::args::{GeocodeArgs, GeocodeFormat};
use crate::console::{print, printable};
use crate::exit::{Exit, Fail};
use crate::output::coordinates;

/// Decimals of coordinates: about 11 m, well within any city.
const DECIMALS: usize = 4;

/// What one text may mean.
#[derive(Serialize)]
struct Found<'a> {
    query: &'a str,
    places: Vec<Place>,
}

/// Looks texts up.
pub fn run(args: &GeocodeArgs) -> Result<Exit, Fail> {
    let gazetteer = Gazetteer::full()?;
    let look_up = |text: &String| gazetteer.geocode(text);
    let found: Vec<Found> =
        args.texts.iter().map(|text| Found { query: text, places: look_up(text) }).collect();
    let document = match args.format {
        GeocodeFormat::Text => found.iter().map(text).collect::<Vec<_>>().join("\n"),
        GeocodeFormat::Json => serde_json::to_string_pretty(&found)? + "\n",
    };
    print(&document).context("cannot write to standard output")?;
    let missing = found.iter().any(|found| found.places.is_empty());
    Ok(if missing { Exit::NotFound } else { Exit::Success })
}

fn text(found: &Found) -> String {
    let query = printable(found.query);
    if found.places.is_empty() {
        return format!("{query}: not found\n");
    }
    let names: Vec<String> = found.places.iter().map(name).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let rows = found.places.iter().zip(&names).map(|(place, name)| {
        let position = coordinates(place.lat, place.lon, DECIMALS);
        let population = match place.population {
            0 => String::new(),
            n => format!("  {n} people"),
        };
        let note =
            if place.match_kind.is_fallback() { "  (the city named is not there)" } else { "" };
        format!("  {name:width$}  {position}  within {} km{population}{note}\n", place.radius_km)
    });
    format!("{query}\n{}", rows.collect::<String>())
}

fn name(place: &Place) -> String {
    let parts = [place.city.as_ref(), place.region.as_ref(), Some(&place.country)];
    let mut parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    parts.dedup(); // Singapore, Singapore
    format!("{} [{}]", parts.join(", "), place.country_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(query: &str) -> String {
        let places = Gazetteer::full().unwrap().geocode(query);
        text(&Found { query, places })
    }

    #[test]
    fn places_are_one_line_each() {
        let text = text_of("Paris, France");
        assert!(text.starts_with("Paris, France\n  Paris, Île-de-France, France [FR]"), "{text}");
        assert!(text.contains("48.85") && text.ends_with("people\n"), "{text}");
    }

    #[test]
    fn an_unknown_place_has_no_position() {
        assert_eq!(text_of("Nowhereville"), "Nowhereville: not found\n");
    }
}
