//! Where a name may be: the country and regions stated, resolved to rows.

use crate::{
    Gazetteer,
    gazetteer::Target,
    variants::{country_forms, is_separator},
};

/// Country and regions that a query names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    pub country: Option<u16>,
    /// A country was named that the gazetteer does not know.
    pub country_unknown: bool,
    /// Regions named, all within `country` if there is one.
    pub regions: Vec<u16>,
    /// What the country's name means when read as a region: `Georgia`.
    pub namesakes: Vec<u16>,
}

impl Gazetteer {
    /// Rows a country's name may mean exactly: upper-case alpha-2 code, name, then codes in any
    /// case.
    pub(crate) fn country_exact(&self, name: &str) -> Option<u16> {
        let name = name.trim();
        let upper = name.to_ascii_uppercase();
        if name == upper && self.code2(name).is_some() {
            return self.code2(name);
        }
        let forms = country_forms(name);
        let named = forms.iter().find_map(|form| self.tables.country_names.find(form).next());
        named
            .and_then(|hit| u16::try_from(hit.owner).ok())
            .or_else(|| self.code3(&upper))
            .or_else(|| self.code2(&upper))
    }

    /// The country one typing error away; the most populous of several.
    pub(crate) fn country_with_typo(&self, name: &str) -> Option<u16> {
        let form = country_forms(name).into_iter().next()?;
        let hits = self.tables.country_names.find_with_typo(&form);
        let best = hits.iter().max_by_key(|hit| {
            let population = self.tables.countries[hit.owner as usize].spot.population;
            (population, std::cmp::Reverse(hit.owner))
        })?;
        u16::try_from(best.owner).ok()
    }

    /// Regions with this name, in this country if given, the one with the largest city first.
    pub(crate) fn regions_named(&self, name: &str, country: Option<u16>) -> Vec<u16> {
        let key = crate::fold(name);
        let mut rows: Vec<u16> = self
            .tables
            .region_names
            .find(&key)
            .filter_map(|hit| u16::try_from(hit.owner).ok())
            .filter(|&r| country.is_none_or(|c| self.closeness(Target::Region(r), c) > 0))
            .collect();
        rows.sort_by_key(|&r| (std::cmp::Reverse(self.spot(Target::Region(r)).population), r));
        rows.dedup();
        rows
    }

    /// 2 in the country, 1 in a territory also written under it, else 0.
    pub(crate) fn closeness(&self, target: Target, country: u16) -> u8 {
        let own = self.country_of(target);
        if own == country {
            return 2;
        }
        u8::from(self.tables.countries[usize::from(own)].parent == Some(country))
    }

    /// Resolves what is named as country and region.
    pub(crate) fn scope(&self, country: Option<&str>, region: Option<&str>) -> Scope {
        let mut scope = country.map(|name| self.country_scope(name)).unwrap_or_default();
        if let Some(region) = region {
            let stated = region.split(is_separator).map(|r| self.regions_named(r, scope.country));
            let stated = stated.reduce(|a, b| if a.is_empty() { b } else { a }).unwrap_or_default();
            if !stated.is_empty() {
                scope.regions = stated;
            }
        }
        scope
    }

    /// `France`; `Scotland`, a region; `Texas, USA`; `Frnace`.
    fn country_scope(&self, name: &str) -> Scope {
        if let Some(country) = self.country_exact(name) {
            let namesakes = self.regions_named(name, None);
            return Scope { country: Some(country), namesakes, ..Scope::default() };
        }
        if let Some((before, last)) = name.rsplit_once(is_separator)
            && let Some(country) = self.country_exact(last)
        {
            let regions = self.regions_named(before, Some(country));
            return Scope { country: Some(country), regions, ..Scope::default() };
        }
        if let Some(&region) = self.regions_named(name, None).first() {
            let country = Some(self.country_of(Target::Region(region)));
            return Scope { country, regions: vec![region], ..Scope::default() };
        }
        let country = self.country_with_typo(name);
        Scope { country, country_unknown: country.is_none(), ..Scope::default() }
    }
}
