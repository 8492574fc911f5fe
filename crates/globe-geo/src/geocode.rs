//! Free text to places, as a person types it.

use crate::{
    Gazetteer, MatchKind, Place, gazetteer::Target, refusal::is_blank, scope::Scope,
    variants::is_separator,
};

/// More namesakes than this help nobody choose.
const MAX_RESULTS: usize = 10;

/// Longer names of countries and regions have more words than this only in official form.
const MAX_TAIL_WORDS: usize = 4;

impl Gazetteer {
    /// Places that a text such as `Paris, France`, `Paris, TX`, `France`, `DE` or `Paris Texas` may
    /// mean, best first, at most ten.
    ///
    /// The last part is read as a country and as a region, the first as a city; then the other way
    /// round. If the city is not there, the country or region is given, marked as a mismatch.
    pub fn geocode(&self, text: &str) -> Vec<Place> {
        let parts: Vec<&str> =
            text.split(is_separator).map(str::trim).filter(|p| !is_blank(p)).collect();
        let mut places = match parts[..] {
            [] => Vec::new(),
            [one] => self.geocode_one(one),
            [first, ref middle @ .., last] => self.geocode_parts(first, middle, last),
        };
        places.truncate(MAX_RESULTS);
        places
    }

    fn geocode_one(&self, name: &str) -> Vec<Place> {
        let anywhere = Scope::default();
        let found = self.search(name, &anywhere).targets;
        if !found.is_empty() {
            return self.places(&found);
        }
        let spaced = self.geocode_spaced(name);
        if !spaced.is_empty() {
            return spaced;
        }
        if let Some(country) = self.country_with_typo(name) {
            return self.places(&[(Target::Country(country), MatchKind::Country)]);
        }
        self.places(&self.search_with_typo(name, &anywhere).targets)
    }

    /// `Paris Texas`: the last words are the country or region.
    fn geocode_spaced(&self, name: &str) -> Vec<Place> {
        let gaps = name.rmatch_indices(char::is_whitespace).take(MAX_TAIL_WORDS);
        for (at, gap) in gaps {
            let (city, tail) = (&name[..at], &name[at + gap.len()..]);
            let found: Vec<_> = self
                .readings(tail, &[])
                .iter()
                .flat_map(|scope| self.search(city, scope).targets)
                .collect();
            if !found.is_empty() {
                return self.places(&found);
            }
        }
        Vec::new()
    }

    fn geocode_parts(&self, first: &str, middle: &[&str], last: &str) -> Vec<Place> {
        let mut readings: Vec<(&str, Scope)> =
            self.readings(last, middle).into_iter().map(|scope| (first, scope)).collect();
        if self.country_exact(first).is_some() {
            readings.extend(self.readings(first, middle).into_iter().map(|scope| (last, scope)));
        }
        if readings.is_empty() {
            readings.push((first, self.scope(Some(last), None)));
        }
        let searches: Vec<_> =
            readings.iter().map(|(city, scope)| self.search_with_typo(city, scope)).collect();
        let found: Vec<_> = searches.iter().flat_map(|s| s.targets.iter().copied()).collect();
        if !found.is_empty() {
            return self.places(&found);
        }
        let fallback = |((_, scope), search): (&(&str, Scope), &crate::locate::Search)| {
            self.fallback(scope, search.elsewhere)
        };
        readings.iter().zip(&searches).find_map(fallback).into_iter().collect()
    }

    /// What a country or region may mean: the country, then the region.
    fn readings(&self, name: &str, middle: &[&str]) -> Vec<Scope> {
        let mut readings = Vec::new();
        if let Some(country) = self.country_exact(name) {
            let region = middle.iter().find_map(|m| {
                Some(self.regions_named(m, Some(country))).filter(|found| !found.is_empty())
            });
            let regions = region.unwrap_or_default();
            readings.push(Scope { country: Some(country), regions, ..Scope::default() });
        }
        let regions = self.regions_named(name, None);
        if !regions.is_empty() {
            readings.push(Scope { regions, ..Scope::default() });
        }
        readings
    }

    /// Places of the rows; of two at one point only the better.
    fn places(&self, found: &[(Target, MatchKind)]) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for place in found.iter().filter_map(|&(target, kind)| self.place(target, kind)) {
            if !places.iter().any(|p| p.lat == place.lat && p.lon == place.lon) {
                places.push(place);
            }
        }
        places
    }
}
