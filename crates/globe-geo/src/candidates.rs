//! Sampled answers to ranked candidates: votes, not probabilities.

use serde::Serialize;

use crate::{Gazetteer, MatchKind, ParseStatus, ParsedAnswer, Place, haversine_km};

/// Cities nearer than this are one candidate: suburbs and their city, as evaluation at 25 km
/// around each would see them.
const MERGE_KM: f64 = 50.0;

/// One sampled answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The place found, if any.
    pub place: Option<Place>,
    /// How the answer was read.
    pub status: ParseStatus,
}

impl Sample {
    /// Looks the names of an answer up.
    pub fn from_answer(answer: &ParsedAnswer, gazetteer: &Gazetteer) -> Self {
        let place =
            if answer.status.is_parsed() { gazetteer.locate(&answer.query()) } else { None };
        Self { place, status: answer.status }
    }
}

/// A place with the votes for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// 1 for the best.
    pub rank: usize,
    /// Display name of the country.
    pub country: String,
    /// ISO 3166-1 alpha-2 code, or `XK`.
    pub country_code: String,
    /// First-level division, where known.
    pub region: Option<String>,
    /// City; none when only a region or country was named.
    pub city: Option<String>,
    /// Latitude in degrees.
    pub lat: f64,
    /// Longitude in degrees.
    pub lon: f64,
    /// Size of the place or spread of the answers merged into it, whichever is larger.
    pub radius_km: f64,
    /// Vote share: votes over all samples, unreadable ones included. Not a probability.
    pub confidence: f64,
    /// Samples that named this place or one merged into it.
    pub votes: usize,
    /// How the names of the leading answer led to the place.
    pub match_kind: MatchKind,
}

/// What a set of samples says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// False when no sample gave a place.
    pub located: bool,
    /// Number of samples.
    pub samples: usize,
    /// Samples in which a place was read.
    pub parsed: usize,
    /// Samples with neither a place nor a refusal.
    pub parse_failures: usize,
    /// Samples in which the model said that it cannot tell.
    pub refusals: usize,
    /// Samples in which a place was read that the gazetteer does not know.
    pub not_in_gazetteer: usize,
    /// The best candidates, best first.
    pub candidates: Vec<Candidate>,
    /// Candidates beyond those shown, so that rounding loses no vote.
    #[serde(skip)]
    pub(crate) hidden: Vec<Candidate>,
}

/// Groups samples into at most `top_k` candidates.
///
/// Equal places are counted, then taken by votes, ties by first appearance. A city joins the first
/// candidate whose leading city lies within 50 km, else it starts one; name and point are those of
/// the leading city. Answers that name only a region or country are candidates of their own, so a
/// city's vote share never counts samples that did not name it; but they support the best city
/// within them, which is therefore ranked above them. Deterministic: no randomness, no hash order.
pub fn candidates(samples: &[Sample], top_k: usize) -> Outcome {
    let count = |wanted: fn(&Sample) -> bool| samples.iter().filter(|s| wanted(s)).count();
    let mut candidates = ranked(clusters(tally(samples), samples.len()));
    let hidden = candidates.split_off(top_k.min(candidates.len()));
    Outcome {
        located: !(candidates.is_empty() && hidden.is_empty()),
        samples: samples.len(),
        parsed: count(|s| s.status.is_parsed()),
        parse_failures: count(|s| s.status == ParseStatus::NoAnswer),
        refusals: count(|s| s.status == ParseStatus::Refused),
        not_in_gazetteer: count(|s| s.status.is_parsed() && s.place.is_none()),
        candidates,
        hidden,
    }
}

/// Distinct places with their votes, most votes first, ties by first appearance.
fn tally(samples: &[Sample]) -> Vec<(&Place, usize)> {
    let mut tally: Vec<(&Place, usize)> = Vec::new();
    for place in samples.iter().filter_map(|s| s.place.as_ref()) {
        match tally.iter_mut().find(|(known, _)| same_place(known, place)) {
            Some((_, votes)) => *votes += 1,
            None => tally.push((place, 1)),
        }
    }
    tally.sort_by_key(|&(_, votes)| std::cmp::Reverse(votes));
    tally
}

fn same_place(a: &Place, b: &Place) -> bool {
    a.country_code == b.country_code
        && a.city == b.city
        && a.region == b.region
        && (a.lat, a.lon) == (b.lat, b.lon)
}

fn clusters(tally: Vec<(&Place, usize)>, n_samples: usize) -> Vec<Candidate> {
    let mut clusters: Vec<Candidate> = Vec::new();
    for (place, votes) in tally {
        let point = (place.lat, place.lon);
        let near = clusters.iter_mut().find_map(|c| {
            let km = haversine_km((c.lat, c.lon), point);
            (c.city.is_some() && place.city.is_some() && km <= MERGE_KM).then_some((c, km))
        });
        match near {
            Some((cluster, km)) => {
                cluster.votes += votes;
                cluster.radius_km = cluster.radius_km.max(km);
            }
            None => clusters.push(candidate(place, votes)),
        }
    }
    for cluster in &mut clusters {
        cluster.confidence = cluster.votes as f64 / n_samples as f64;
    }
    clusters
}

fn candidate(place: &Place, votes: usize) -> Candidate {
    Candidate {
        rank: 0,
        country: place.country.clone(),
        country_code: place.country_code.clone(),
        region: place.region.clone(),
        city: place.city.clone(),
        lat: place.lat,
        lon: place.lon,
        radius_km: place.radius_km,
        confidence: 0.0,
        votes,
        match_kind: place.match_kind,
    }
}

/// Orders by support, ties as given, and numbers from 1. Support is the votes, and for the best
/// city (or, without one, region) of a place named alone also the votes of that place.
pub(crate) fn ranked(candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut support: Vec<usize> = candidates.iter().map(|c| c.votes).collect();
    for coarse in candidates.iter().filter(|c| c.city.is_none()) {
        if let Some(best) = best_within(coarse, &candidates) {
            support[best] += coarse.votes;
        }
    }
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(support[i]));
    let mut slots: Vec<Option<Candidate>> = candidates.into_iter().map(Some).collect();
    let sorted = order.into_iter().filter_map(|i| slots[i].take());
    sorted.enumerate().map(|(i, c)| Candidate { rank: i + 1, ..c }).collect()
}

/// The candidate with most votes inside a region or country; cities before regions.
fn best_within(coarse: &Candidate, all: &[Candidate]) -> Option<usize> {
    let inside = |c: &Candidate| {
        let finer = c.city.is_some() || (coarse.region.is_none() && c.region.is_some());
        let same_region = coarse.region.is_none() || coarse.region == c.region;
        finer && same_region && c.country_code == coarse.country_code
    };
    let found = all.iter().enumerate().filter(|(_, c)| inside(c));
    let best = found.max_by_key(|(i, c)| (c.city.is_some(), c.votes, std::cmp::Reverse(*i)));
    best.map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(country_code: &str, region: Option<&str>, city: Option<&str>, lat: f64) -> Place {
        Place {
            country: country_code.to_lowercase(),
            country_code: country_code.to_owned(),
            region: region.map(str::to_owned),
            city: city.map(str::to_owned),
            lat,
            lon: 10.0,
            radius_km: 5.0,
            population: 1,
            match_kind: MatchKind::Exact,
        }
    }

    fn votes(places: &[(&Place, usize)]) -> Vec<Sample> {
        let one = |p: &Place| Sample { place: Some(p.clone()), status: ParseStatus::Strict };
        places.iter().flat_map(|&(p, n)| std::iter::repeat_n(one(p), n)).collect()
    }

    fn cities(outcome: &Outcome) -> Vec<(Option<&str>, usize)> {
        outcome.candidates.iter().map(|c| (c.city.as_deref(), c.votes)).collect()
    }

    #[test]
    fn near_cities_merge_under_the_one_with_most_votes() {
        let (suburb, city) =
            (place("FR", None, Some("b"), 48.3), place("FR", None, Some("a"), 48.0));
        let far = place("FR", None, Some("c"), 49.0);
        let outcome = candidates(&votes(&[(&suburb, 1), (&city, 3), (&far, 1)]), 5);
        assert_eq!(cities(&outcome), [(Some("a"), 4), (Some("c"), 1)]);
        assert_eq!(outcome.candidates[0].lat, 48.0);
        assert!((outcome.candidates[0].radius_km - 33.4).abs() < 0.1, "spread of the members");
        assert_eq!(outcome.candidates[1].radius_km, 5.0);
        assert_eq!(outcome.candidates[0].confidence, 0.8);
    }

    #[test]
    fn ties_go_to_the_first_seen_and_ranks_count_from_one() {
        let (a, b) = (place("FR", None, Some("a"), 1.0), place("DE", None, Some("b"), 2.0));
        let outcome = candidates(&votes(&[(&b, 2), (&a, 2)]), 5);
        assert_eq!(cities(&outcome), [(Some("b"), 2), (Some("a"), 2)]);
        let ranks: Vec<_> = outcome.candidates.iter().map(|c| c.rank).collect();
        assert_eq!(ranks, [1, 2]);
    }

    #[test]
    fn a_country_named_alone_supports_its_city_without_voting_for_it() {
        let country = place("FR", None, None, 48.0);
        let city = place("FR", None, Some("lyon"), 45.0);
        let other = place("DE", None, Some("bonn"), 50.0);
        let outcome = candidates(&votes(&[(&country, 5), (&other, 3), (&city, 2)]), 5);
        assert_eq!(cities(&outcome), [(Some("lyon"), 2), (None, 5), (Some("bonn"), 3)]);
        assert_eq!(outcome.candidates[0].confidence, 0.2);
        let alone = candidates(&votes(&[(&country, 2), (&other, 1)]), 5);
        assert_eq!(cities(&alone), [(None, 2), (Some("bonn"), 1)]);
    }

    #[test]
    fn a_region_supports_only_its_own_city() {
        let region = place("US", Some("texas"), None, 30.0);
        let inside = place("US", Some("texas"), Some("austin"), 31.0);
        let outside = place("US", Some("ohio"), Some("dayton"), 40.0);
        let outcome = candidates(&votes(&[(&outside, 2), (&inside, 1), (&region, 2)]), 5);
        assert_eq!(cities(&outcome), [(Some("austin"), 1), (Some("dayton"), 2), (None, 2)]);
    }

    #[test]
    fn every_sample_is_counted_once() {
        let city = place("FR", None, Some("a"), 1.0);
        let mut samples = votes(&[(&city, 1)]);
        for status in [ParseStatus::Lenient, ParseStatus::Refused, ParseStatus::NoAnswer] {
            samples.push(Sample { place: None, status });
        }
        let outcome = candidates(&samples, 5);
        assert_eq!((outcome.samples, outcome.parsed), (4, 2));
        assert_eq!((outcome.parse_failures, outcome.refusals, outcome.not_in_gazetteer), (1, 1, 1));
        assert_eq!(outcome.candidates[0].confidence, 0.25);
        assert!(outcome.located);
    }

    #[test]
    fn nothing_found_is_not_located() {
        for samples in [vec![], vec![Sample { place: None, status: ParseStatus::Refused }]] {
            let outcome = candidates(&samples, 5);
            assert!(!outcome.located && outcome.candidates.is_empty());
        }
    }

    #[test]
    fn at_most_top_k_are_shown() {
        let places: Vec<Place> =
            (0..6_u8).map(|i| place("FR", None, Some("x"), f64::from(i) * 5.0)).collect();
        let samples = votes(&places.iter().map(|p| (p, 1)).collect::<Vec<_>>());
        let outcome = candidates(&samples, 4);
        assert_eq!((outcome.candidates.len(), outcome.hidden.len()), (4, 2));
        assert!(candidates(&samples, 0).located);
    }

    #[test]
    fn serialises_under_the_documented_names() {
        let city = place("FR", None, Some("a"), 1.0);
        let json = serde_json::to_value(candidates(&votes(&[(&city, 1)]), 1)).unwrap();
        let first = &json["candidates"][0];
        assert_eq!((first["rank"].as_u64(), first["country_code"].as_str()), (Some(1), Some("FR")));
        assert_eq!(first["match_kind"], "exact");
        assert!(first["region"].is_null());
        assert_eq!(json["not_in_gazetteer"], 0);
        assert!(json.get("hidden").is_none());
    }
}
