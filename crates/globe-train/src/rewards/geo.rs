//! Is the place right?

use std::sync::Arc;

use globe_geo::{Gazetteer, MatchKind, ParsedAnswer, Place, PlaceQuery, fold, haversine_km};
use serde::{Deserialize, Serialize};

use super::{Attempt, Reward, read_answer};
use crate::{Result, data::Sample};

/// Share of the shorter name in the longer for GLOBE's rule of letters.
const LETTERS_SHARE: f64 = 0.7;

/// What stands between two guesses. A comma may also stand within one name.
const HEDGES: &[&str] = &[" or ", " and ", "/", ";", "|", "\n", "?"];

/// Two names this far apart are two guesses, nearer they are a city and its district.
const SAME_PLACE_KM: f64 = 60.0;

/// When two names are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameMatch {
    /// Both mean the same row of the gazetteer: `Munich` is `München`, `Hefei City` is `Hefei`.
    /// Letters decide about a true name the gazetteer does not know.
    #[default]
    Gazetteer,
    /// GLOBE's released rule: one contains the other and is at least 0.7 times as long.
    Letters,
}

/// Value of a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GeoForm {
    /// `country * (1 - alpha + alpha * city)`; GLOBE has alpha 0.8: 1, 0.2 or 0. A row without a
    /// true city asks for the country only.
    Names {
        /// Share of the city.
        alpha: f64,
        /// When names are the same.
        names: NameMatch,
    },
    /// `exp(-km / tau_km)` between the place named and the true place.
    Distance {
        /// Distance at which the value has fallen to 1 / e.
        tau_km: f64,
    },
}

/// The geo-accuracy reward.
#[derive(Clone, Debug)]
pub struct Geo {
    gazetteer: Arc<Gazetteer>,
    form: GeoForm,
}

impl Geo {
    /// A reward of this form.
    pub fn new(gazetteer: Arc<Gazetteer>, form: GeoForm) -> Self {
        Self { gazetteer, form }
    }

    /// `None` when the row has no truth to compare with.
    fn value(&self, attempt: &Attempt<'_>) -> Option<f64> {
        let Some(answer) = read_answer(attempt.text).place else {
            return self.truth_exists(attempt.sample).then_some(0.0);
        };
        match self.form {
            GeoForm::Names { alpha, names } => self.by_names(&answer, attempt.sample, alpha, names),
            GeoForm::Distance { tau_km } => self.by_distance(&answer, attempt.sample, tau_km),
        }
    }

    fn truth_exists(&self, sample: &Sample) -> bool {
        match self.form {
            GeoForm::Names { .. } => sample.country.is_some(),
            GeoForm::Distance { .. } => self.true_position(sample).is_some(),
        }
    }

    fn by_names(
        &self,
        answer: &ParsedAnswer,
        sample: &Sample,
        alpha: f64,
        names: NameMatch,
    ) -> Option<f64> {
        let truth = sample.country.as_deref()?;
        let country = answer.country.as_deref();
        if !country.is_some_and(|c| self.same_country(c, truth, names)) {
            return Some(0.0);
        }
        let Some(true_city) = sample.city.as_deref() else {
            return Some(1.0);
        };
        let city = answer.city.as_deref();
        let right = city.is_some_and(|c| self.same_city(c, true_city, truth, names));
        Some(1.0 - alpha + if right { alpha } else { 0.0 })
    }

    fn by_distance(&self, answer: &ParsedAnswer, sample: &Sample, tau_km: f64) -> Option<f64> {
        let truth = self.true_position(sample)?;
        let hedged = answer.country.as_deref().is_some_and(|c| self.countries_hedged(c))
            || answer
                .city
                .as_deref()
                .is_some_and(|c| self.cities_hedged(c, answer.country.as_deref()));
        let place = self.gazetteer.locate(&answer.query()).map(|p| (p.lat, p.lon));
        let point = answer.lat.zip(answer.lon).or(place).filter(|_| !hedged);
        Some(point.map_or(0.0, |point| (-haversine_km(point, truth) / tau_km).exp()))
    }

    fn true_position(&self, sample: &Sample) -> Option<(f64, f64)> {
        let located = || {
            let query = PlaceQuery {
                country: sample.country.as_deref(),
                region: None,
                city: Some(sample.city.as_deref()?),
            };
            let place = self.gazetteer.locate(&query)?;
            place.match_kind.is_city().then_some((place.lat, place.lon))
        };
        sample.position.or_else(located)
    }

    fn same_country(&self, answer: &str, truth: &str, names: NameMatch) -> bool {
        if names == NameMatch::Letters {
            return same_letters(answer, truth);
        }
        if self.countries_hedged(answer) {
            return false;
        }
        match (self.country_within(answer), self.country_within(truth)) {
            (Some(answer), Some(truth)) => answer.country_code == truth.country_code,
            (None, Some(_)) => fold(answer) == fold(truth),
            (_, None) => same_letters(answer, truth),
        }
    }

    fn same_city(&self, answer: &str, truth: &str, country: &str, names: NameMatch) -> bool {
        if names == NameMatch::Letters {
            return same_letters(answer, truth);
        }
        if fold(answer) == fold(truth) {
            return true;
        }
        if self.cities_hedged(answer, Some(country)) {
            return false;
        }
        match (self.city(answer, country), self.city(truth, country)) {
            (Some(a), Some(t)) => (a.lat, a.lon) == (t.lat, t.lon),
            (None, Some(_)) => false,
            (_, None) => same_letters(answer, truth),
        }
    }

    fn country(&self, name: &str) -> Option<Place> {
        let query = PlaceQuery { country: Some(name), ..PlaceQuery::default() };
        self.gazetteer.locate(&query).filter(|p| p.match_kind == MatchKind::Country)
    }

    /// The country named, or the first of the parts that is one: Hong Kong in `Hong Kong, China`.
    fn country_within(&self, name: &str) -> Option<Place> {
        self.country(name).or_else(|| parts(name).into_iter().find_map(|part| self.country(part)))
    }

    /// A city, or a region under a city's label, in the country; no forgiven typing errors.
    fn city(&self, name: &str, country: &str) -> Option<Place> {
        let query = PlaceQuery { country: Some(country), region: None, city: Some(name) };
        let place = self.gazetteer.locate(&query)?;
        let kind = place.match_kind;
        let known = kind == MatchKind::Region || kind.is_city() && kind != MatchKind::Typo;
        known.then_some(place)
    }

    /// True for `France, Germany`; false for `Korea, South`, `Hong Kong, China` and `Bosnia and
    /// Herzegovina`.
    fn countries_hedged(&self, name: &str) -> bool {
        let parts = parts(name);
        let mut known: Vec<String> = Vec::new();
        for code in parts.iter().filter_map(|p| self.country(p)).map(|p| p.country_code) {
            if !known.contains(&code) {
                known.push(code);
            }
        }
        let [head, tail] = parts[..] else {
            return known.len() > 1;
        };
        let within = || {
            let query = PlaceQuery { country: Some(tail), region: None, city: Some(head) };
            self.gazetteer.locate(&query).is_some_and(|p| !p.match_kind.is_fallback())
        };
        known.len() > 1 && !within()
    }

    /// True for `Paris, Lyon` and `Paris or Lyon`; false for `Washington, D.C.`, `Paris, Texas` and
    /// `Shibuya, Tokyo`.
    fn cities_hedged(&self, name: &str, country: Option<&str>) -> bool {
        let parts = parts(name);
        let found = |part: &&str| {
            let query = PlaceQuery { country, region: None, city: Some(part) };
            self.gazetteer.locate(&query).filter(|p| p.match_kind.is_city())
        };
        let places: Vec<Place> = parts.iter().filter_map(found).collect();
        let far = |p: &Place| {
            haversine_km((places[0].lat, places[0].lon), (p.lat, p.lon)) > SAME_PLACE_KM
        };
        parts.len() > 3 || places.iter().any(far)
    }
}

impl Reward for Geo {
    fn name(&self) -> &str {
        "geo"
    }

    fn score(&mut self, attempts: &[Attempt<'_>]) -> Result<Vec<Option<f64>>> {
        Ok(attempts.iter().map(|a| self.value(a)).collect())
    }
}

/// The names a name may consist of.
fn parts(name: &str) -> Vec<&str> {
    let mut parts = vec![name];
    for separator in HEDGES.iter().chain(&[",", "，", "、"]) {
        parts = parts.into_iter().flat_map(|p| p.split(separator)).collect();
    }
    parts.into_iter().map(str::trim).filter(|p| !p.is_empty()).collect()
}

/// GLOBE's released rule.
fn same_letters(answer: &str, truth: &str) -> bool {
    let [a, t] = [answer, truth].map(|s| s.trim().to_lowercase());
    let [n, m] = [&a, &t].map(|s| s.chars().count());
    let share = n.min(m) as f64 / n.max(m).max(1) as f64;
    (a.contains(&t) || t.contains(&a)) && share >= LETTERS_SHARE
}
