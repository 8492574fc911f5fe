//! Names to one place: the rules of choice.

use std::cmp::Ordering;

use crate::{
    Gazetteer, MatchKind, Place, PlaceQuery, fold,
    gazetteer::Target,
    names::Hit,
    refusal::is_blank,
    scope::Scope,
    variants::{city_forms, split_head},
};

/// Weight of an alternate name and of a region beside a city of that very name: New York for
/// `Manhattan`, but York for `York`.
const ALTERNATE_WEIGHT: f64 = 0.3;

/// A city this large keeps its own name against its region and against a country's foreign name:
/// `Granada` is in Spain.
const LARGE_CITY: u32 = 100_000;

/// What a name may mean within a scope, best first.
#[derive(Debug, Default)]
pub(crate) struct Search {
    pub targets: Vec<(Target, MatchKind)>,
    /// The name exists outside the scope.
    pub elsewhere: bool,
}

impl Gazetteer {
    /// The place a query means.
    ///
    /// * Country and city: the city in that country; of namesakes the one in the region stated,
    ///   then the most populous. A name that is a region (`Bali`) gives the region.
    /// * City not in that country: the region or country stated, marked
    ///   [`MatchKind::CityElsewhere`] or [`MatchKind::CityUnknown`].
    /// * City alone: the most populous; alternate names count for less than own names.
    /// * Country alone: its most populous city's point, with a radius the size of the country.
    /// * One typing error is forgiven in names of six letters or more found nowhere exactly.
    ///
    /// None when nothing named is known. Words such as `unknown` count as not given.
    pub fn locate(&self, query: &PlaceQuery) -> Option<Place> {
        let (country, region) = (given(query.country), given(query.region));
        let Some(city) = given(query.city) else {
            return self.locate_larger(country, region);
        };
        let tail = Some(split_head(city).1).filter(|t| !t.is_empty());
        let country = country.or(tail.filter(|t| self.country_exact(t).is_some()));
        let scope = self.scope(country, region.or(tail));
        let search = self.search_with_typo(city, &scope);
        match search.targets.first() {
            Some(&(target, kind)) => self.place(target, kind),
            None => self.fallback(&scope, search.elsewhere),
        }
    }

    /// No city is named.
    fn locate_larger(&self, country: Option<&str>, region: Option<&str>) -> Option<Place> {
        let scope = self.scope(country, region);
        if let Some(&region) = scope.regions.first() {
            return self.place(Target::Region(region), MatchKind::Region);
        }
        if let Some(row) = scope.country {
            // `Paris, France` given as the country.
            let city = country.map(split_head).filter(|(_, tail)| !tail.is_empty());
            let found =
                city.and_then(|(head, _)| self.search(head, &scope).targets.first().copied());
            let (target, kind) = found.unwrap_or((Target::Country(row), MatchKind::Country));
            return self.place(target, kind);
        }
        let (target, kind) = *self.search_with_typo(country.or(region)?, &scope).targets.first()?;
        self.place(target, kind)
    }

    /// The region or country stated, when the city is not in it.
    pub(crate) fn fallback(&self, scope: &Scope, elsewhere: bool) -> Option<Place> {
        let kind = if elsewhere { MatchKind::CityElsewhere } else { MatchKind::CityUnknown };
        let region = scope.regions.first().map(|&r| Target::Region(r));
        self.place(region.or(scope.country.map(Target::Country))?, kind)
    }

    /// As `search`; a name found nowhere may have one typing error.
    pub(crate) fn search_with_typo(&self, name: &str, scope: &Scope) -> Search {
        let mut search = self.search(name, scope);
        if !search.targets.is_empty() || search.elsewhere {
            return search;
        }
        let mut forms = vec![fold(name), fold(split_head(name).0)];
        forms.dedup();
        for form in forms {
            let hits = self.tables.city_names.find_with_typo(&form);
            search.targets = self.ranked(self.cities(&hits, MatchKind::Typo), scope);
            if !search.targets.is_empty() {
                break;
            }
        }
        search
    }

    /// All meanings of the first form of the name that has any in the scope.
    pub(crate) fn search(&self, name: &str, scope: &Scope) -> Search {
        let mut search = Search::default();
        for (i, form) in city_forms(name).iter().enumerate() {
            let mut found = self.meanings(form, i == 0);
            if i == 0 {
                found.extend(self.country_meaning(name, form, &found));
            }
            search.elsewhere |= !found.is_empty();
            search.targets = self.ranked(found, scope);
            if !search.targets.is_empty() {
                break;
            }
        }
        search
    }

    /// Cities and regions with this key.
    fn meanings(&self, form: &str, as_given: bool) -> Vec<Meaning> {
        let hits: Vec<Hit> = self.tables.city_names.find(form).collect();
        let mut found = self.cities(&hits, MatchKind::Exact);
        for meaning in found.iter_mut().filter(|_| !as_given) {
            meaning.kind = MatchKind::Variant;
        }
        let regions = self.regions_named(form, None);
        found.extend(regions.into_iter().map(|r| self.region_meaning(r, &hits)));
        found
    }

    /// Comes after a large city of its country with its very name: Oyo, not Oyo State.
    fn region_meaning(&self, region: u16, hits: &[Hit]) -> Meaning {
        let target = Target::Region(region);
        let country = self.country_of(target);
        let yields = hits.iter().any(|hit| {
            let city = Target::City(hit.owner);
            hit.primary
                && self.country_of(city) == country
                && self.spot(city).population >= LARGE_CITY
        });
        let weight = if yields { 0.0 } else { ALTERNATE_WEIGHT };
        let score = weight * f64::from(self.spot(target).population);
        Meaning { target, kind: MatchKind::Region, score }
    }

    fn cities(&self, hits: &[Hit], kind: MatchKind) -> Vec<Meaning> {
        hits.iter()
            .map(|hit| {
                let target = Target::City(hit.owner);
                let population = f64::from(self.spot(target).population);
                match (kind, hit.primary) {
                    (MatchKind::Exact, false) => Meaning {
                        target,
                        kind: MatchKind::Alternate,
                        score: ALTERNATE_WEIGHT * population,
                    },
                    (_, true) => Meaning { target, kind, score: population },
                    (_, false) => Meaning { target, kind, score: ALTERNATE_WEIGHT * population },
                }
            })
            .collect()
    }

    /// A country named where a city is expected. Comes first, except after its own city of that
    /// name (`Singapore`) and after a large city whose own name it is in another language.
    fn country_meaning(&self, name: &str, form: &str, found: &[Meaning]) -> Option<Meaning> {
        let country = self.country_exact(name)?;
        let target = Target::Country(country);
        let own_name = self.tables.country_names.find(form).any(|hit| hit.primary);
        let yields = found.iter().any(|m| {
            m.kind == MatchKind::Exact
                && (self.country_of(m.target) == country
                    || !own_name && self.spot(m.target).population >= LARGE_CITY)
        });
        let score = if yields { 0.0 } else { f64::INFINITY };
        Some(Meaning { target, kind: MatchKind::Country, score })
    }

    /// Those in the scope, best first: nearer to the country, in the region, higher score.
    fn ranked(&self, found: Vec<Meaning>, scope: &Scope) -> Vec<(Target, MatchKind)> {
        let mut ranked: Vec<(u8, bool, Meaning)> = found
            .into_iter()
            .filter_map(|m| {
                let region = self.region_of(m.target);
                let in_region = region.is_some_and(|r| scope.regions.contains(&r));
                Some((self.rank_in(scope, m.target, in_region)?, in_region, m))
            })
            .collect();
        ranked.sort_by(|a, b| {
            let by_place = b.0.cmp(&a.0).then(b.1.cmp(&a.1));
            by_place.then(b.2.score.partial_cmp(&a.2.score).unwrap_or(Ordering::Equal))
        });
        ranked
            .into_iter()
            .map(|(_, _, m)| {
                let named_city = scope.country_unknown && m.kind.is_city();
                (m.target, if named_city { MatchKind::CountryUnknown } else { m.kind })
            })
            .collect()
    }

    fn rank_in(&self, scope: &Scope, target: Target, in_region: bool) -> Option<u8> {
        let Some(country) = scope.country else {
            return (in_region || scope.regions.is_empty()).then_some(0);
        };
        let closeness = self.closeness(target, country);
        let namesake = self.region_of(target).is_some_and(|r| scope.namesakes.contains(&r));
        (closeness > 0 || namesake).then_some(closeness)
    }
}

fn given(name: Option<&str>) -> Option<&str> {
    name.filter(|n| !is_blank(n))
}

/// A row a key may mean, with its weight against others of the same key.
#[derive(Debug, Clone, Copy)]
struct Meaning {
    target: Target,
    kind: MatchKind,
    score: f64,
}
