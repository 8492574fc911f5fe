//! How finely a result is shown.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Candidate, Error, Gazetteer, Outcome, Place, candidates::ranked};

/// The finest unit shown. What is rounded away is not in the result at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Countries.
    Country,
    /// First-level divisions; a country where none is known.
    Region,
    /// Cities.
    #[default]
    City,
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        match word.trim().to_ascii_lowercase().as_str() {
            "country" => Ok(Self::Country),
            "region" => Ok(Self::Region),
            "city" => Ok(Self::City),
            _ => Err(Error::UnknownPrecision { found: word.to_owned() }),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Country => "country",
            Self::Region => "region",
            Self::City => "city",
        })
    }
}

impl Candidate {
    /// The candidate at this precision, with the point and radius of the larger unit.
    ///
    /// None when the gazetteer does not know the country: there is then nothing coarser to show.
    pub fn rounded(&self, precision: Precision, gazetteer: &Gazetteer) -> Option<Self> {
        let country = || gazetteer.country_by_code(&self.country_code);
        let place = match (precision, &self.region) {
            (Precision::City, _) => return Some(self.clone()),
            (Precision::Region, Some(region)) => {
                gazetteer.region_by_name(&self.country_code, region).or_else(country)
            }
            (Precision::Region, None) | (Precision::Country, _) => country(),
        };
        place.map(|place| self.at(place))
    }

    fn at(&self, place: Place) -> Self {
        Self {
            country: place.country,
            region: place.region,
            city: None,
            lat: place.lat,
            lon: place.lon,
            radius_km: place.radius_km,
            match_kind: place.match_kind,
            ..self.clone()
        }
    }
}

impl Outcome {
    /// The outcome at this precision: candidates that become the same unit are one, votes summed,
    /// and all are ranked anew. Votes of candidates beyond the ones shown count too.
    pub fn rounded(&self, precision: Precision, gazetteer: &Gazetteer) -> Self {
        if precision == Precision::City {
            return self.clone();
        }
        let mut merged: Vec<Candidate> = Vec::new();
        let all = self.candidates.iter().chain(&self.hidden);
        for candidate in all.filter_map(|c| c.rounded(precision, gazetteer)) {
            let same = |c: &&mut Candidate| {
                c.country_code == candidate.country_code && c.region == candidate.region
            };
            match merged.iter_mut().find(same) {
                Some(known) => {
                    known.votes += candidate.votes;
                    known.confidence = known.votes as f64 / self.samples as f64;
                }
                None => merged.push(candidate),
            }
        }
        let mut candidates = ranked(merged);
        let hidden = candidates.split_off(self.candidates.len().min(candidates.len()));
        let located = !(candidates.is_empty() && hidden.is_empty());
        Self { located, candidates, hidden, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for precision in [Precision::Country, Precision::Region, Precision::City] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
            let json = serde_json::to_string(&precision).unwrap();
            assert_eq!(json, format!("\"{precision}\""));
        }
        assert_eq!(" City ".parse(), Ok(Precision::City));
        let error = "street".parse::<Precision>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "precision `street` is not known; use country, region or city"
        );
    }
}
