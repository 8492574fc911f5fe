//! Other forms under which a name may stand in the gazetteer, most faithful first.

use crate::fold;

const QUALIFIERS_BEFORE: &[&str] = &[
    "most likely ",
    "probably ",
    "possibly ",
    "likely ",
    "maybe ",
    "perhaps ",
    "somewhere ",
    "near ",
    "in ",
    "around ",
    "outside ",
    "the ",
    "suburbs of ",
    "old town of ",
    "capital city of ",
    "city of ",
    "town of ",
    "village of ",
    "municipality of ",
    "district of ",
    "province of ",
    "greater ",
    "metropolitan ",
    "metro ",
    "downtown ",
    "central ",
    "old ",
    "ville de ",
    "ciudad de ",
    "cidade de ",
    "citta di ",
    "stadt ",
    "kota ",
    "thanh pho ",
    "город ",
];

const QUALIFIERS_AFTER: &[&str] = &[
    " metropolitan area",
    " metropolitan region",
    " metro area",
    " old town",
    " city center",
    " city centre",
    " city",
    " town",
    " downtown",
    " municipality",
    " metro",
    " region",
    " area",
    " suburbs",
    " district",
    " prefecture",
    " governorate",
    " province",
    " county",
    " oblast",
    " dc",
    " shi",
    "市",
    "都",
    "府",
    "県",
    "县",
    "縣",
    "區",
    "区",
    "시",
];

/// `Kingdom of X` and the like. Longer prefixes first. `Democratic Republic of` is left out on
/// purpose: it tells two Congos and two Koreas apart, and those stand in the data.
const STATE_FORMS: &[&str] = &[
    "federal democratic republic of ",
    "democratic socialist republic of ",
    "peoples democratic republic of ",
    "peoples republic of ",
    "federal republic of ",
    "islamic republic of ",
    "co operative republic of ",
    "socialist republic of ",
    "republic of the ",
    "republic of ",
    "kingdom of ",
    "state of ",
    "commonwealth of ",
    "principality of ",
    "grand duchy of ",
    "sultanate of ",
    "union of ",
    "independent state of ",
    "the ",
];

/// Shorter remains than this are no name: `Old City` must not become the empty name.
const MIN_CHARS: usize = 2;

/// A name with more parts than this is a list; each part costs a lookup.
const MAX_TAIL_PARTS: usize = 4;

/// Folded forms of a city's name, without repeats: as given, without brackets, the part before a
/// separator, each without qualifiers, each with `city`, then the parts after a separator.
pub(crate) fn city_forms(name: &str) -> Vec<String> {
    let (head, tail) = split_head(name);
    let mut forms = Forms::default();
    for raw in [name, without_brackets(name), head] {
        forms.push(fold(raw));
    }
    forms.extend(QUALIFIERS_BEFORE, QUALIFIERS_AFTER);
    // `Mexico` for `Mexico City`.
    for i in 0..forms.0.len() {
        forms.push(format!("{} city", forms.0[i]));
    }
    for part in tail.split(is_separator).take(MAX_TAIL_PARTS) {
        forms.push(fold(part));
    }
    forms.0
}

/// Folded forms of a country's name.
pub(crate) fn country_forms(name: &str) -> Vec<String> {
    let mut forms = Forms::default();
    forms.push(fold(name));
    forms.push(fold(without_brackets(name)));
    forms.extend(STATE_FORMS, &[]);
    forms.0
}

/// The part before the first separator and the part after it.
pub(crate) fn split_head(name: &str) -> (&str, &str) {
    let cut = [" or ", " - ", " – ", " — "]
        .into_iter()
        .filter_map(|s| name.find(s).map(|at| (at, s.len())))
        .chain(name.char_indices().find(|c| is_separator(c.1)).map(|(i, c)| (i, c.len_utf8())))
        .min();
    cut.map_or((name, ""), |(at, len)| (&name[..at], &name[at + len..]))
}

/// What may stand between a city and its region or country.
pub(crate) fn is_separator(c: char) -> bool {
    matches!(c, ',' | ';' | '/' | '|' | '\n' | '、' | '，' | '；' | '،')
}

fn without_brackets(name: &str) -> &str {
    name.split(['(', '（', '[']).next().unwrap_or(name)
}

#[derive(Default)]
struct Forms(Vec<String>);

impl Forms {
    fn push(&mut self, form: String) {
        if !form.is_empty() && !self.0.contains(&form) {
            self.0.push(form);
        }
    }

    /// Adds every form with one qualifier less, until none is left to drop.
    fn extend(&mut self, before: &[&str], after: &[&str]) {
        let mut i = 0;
        while i < self.0.len() && self.0.len() < 16 {
            let form = self.0[i].clone();
            let shorter = before
                .iter()
                .filter_map(|q| form.strip_prefix(q))
                .chain(after.iter().filter_map(|q| form.strip_suffix(q)));
            for rest in shorter.filter(|r| r.chars().count() >= MIN_CHARS) {
                self.push(rest.to_owned());
            }
            i += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualifiers_are_dropped() {
        for (name, form) in [
            ("City of London", "london"),
            ("Greater Manchester Area", "manchester"),
            ("Kansas City", "kansas"),
            ("Washington, D.C.", "washington"),
            ("Tokyo (Shibuya)", "tokyo"),
            ("Shibuya, Tokyo", "tokyo"),
            ("Mexico", "mexico city"),
            ("probably near the city of Bonn", "bonn"),
            ("Paris or Lyon", "paris"),
            ("Ville de Québec", "quebec"),
            ("横浜市", "横浜"),
        ] {
            let forms = city_forms(name);
            assert!(forms.iter().any(|f| f == form), "{name}: {forms:?}");
            assert_eq!(forms[0], fold(name), "the name as given comes first");
        }
    }

    #[test]
    fn nothing_is_stripped_to_nothing() {
        assert_eq!(city_forms("市"), ["市", "市 city"]);
        assert!(city_forms("City").iter().all(|f| !f.trim().is_empty()));
        assert!(city_forms("?!").is_empty());
    }

    #[test]
    fn state_forms_are_dropped() {
        assert!(country_forms("Federal Republic of Germany").contains(&"germany".to_owned()));
        assert!(country_forms("Mexico (MX)").contains(&"mexico".to_owned()));
        let congo = country_forms("Democratic Republic of the Congo");
        assert_eq!(congo, ["democratic republic of the congo"]);
    }
}
