//! What is asked of the gazetteer and what it answers.

use serde::Serialize;

/// Names to look up, as a model or a person wrote them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlaceQuery<'a> {
    /// Country: a name in any of many languages, or an ISO 3166-1 code.
    pub country: Option<&'a str>,
    /// First-level division, such as a state; only used to choose between namesakes.
    pub region: Option<&'a str>,
    /// City.
    pub city: Option<&'a str>,
}

/// A place found, with the point and the size that stand for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Place {
    /// Display name of the country.
    pub country: String,
    /// ISO 3166-1 alpha-2 code, or `XK`.
    pub country_code: String,
    /// Display name of the first-level division, where known.
    pub region: Option<String>,
    /// Display name of the city; none for a region or a country.
    pub city: Option<String>,
    /// Latitude in degrees.
    pub lat: f64,
    /// Longitude in degrees.
    pub lon: f64,
    /// Radius of a disc the size of the place.
    pub radius_km: f64,
    /// Inhabitants of the city, of the region's largest city, or of the country; 0 if not known.
    pub population: u64,
    /// How the names led here.
    pub match_kind: MatchKind,
}

/// How the names of a query led to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MatchKind {
    /// The city by its own name.
    Exact,
    /// The city by an alternate name, such as one in another language.
    Alternate,
    /// The city after dropping a qualifier, as in `City of X` or `X, D.C.`.
    Variant,
    /// The city by a name one typing error away.
    Typo,
    /// The city by name, in whatever country: the country named is not known.
    CountryUnknown,
    /// A region: no city was named, or the city named is a region.
    Region,
    /// A country: nothing smaller was named.
    Country,
    /// A mismatch: the city exists, but not in the country or region named, which is given instead.
    CityElsewhere,
    /// The city is not in the gazetteer; the region or country named is given instead.
    CityUnknown,
}

impl MatchKind {
    /// True when the place is the city asked for.
    pub fn is_city(self) -> bool {
        matches!(
            self,
            Self::Exact | Self::Alternate | Self::Variant | Self::Typo | Self::CountryUnknown
        )
    }

    /// True when a city was asked for and something larger is given instead.
    pub fn is_fallback(self) -> bool {
        matches!(self, Self::CityElsewhere | Self::CityUnknown)
    }
}

/// Radius of the disc a city's people fill at the density that makes an urban centre, to 100 m.
///
/// The Degree of Urbanisation (UN Statistical Commission, 2020) draws urban centres at 1,500
/// inhabitants per square kilometre. Real cities are denser inside and looser at the rim; the
/// clamp keeps villages findable and agglomerations local.
pub(crate) fn city_radius_km(population: u32) -> f64 {
    const PEOPLE_PER_KM2: f64 = 1500.0;
    let radius = (f64::from(population) / PEOPLE_PER_KM2 / std::f64::consts::PI).sqrt();
    (radius.clamp(2.0, 40.0) * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn radius_grows_with_population_within_its_clamp() {
        let radii: Vec<f64> =
            [0, 5_000, 50_000, 500_000, 5_000_000, u32::MAX].map(city_radius_km).to_vec();
        assert!(radii.is_sorted());
        assert_eq!((radii[0], radii[5]), (2.0, 40.0));
        assert!((radii[3] - 10.3).abs() < 0.1);
    }
}
