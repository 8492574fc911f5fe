//! Labelled fields: `country: X`, in several languages, with markdown, on one line or several.

use super::{Fields, clean, coordinates, plain};
use crate::fold;

/// Which of several answers counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// In an answer block: ranked guesses, the best first.
    First,
    /// In running text: the conclusion stands at the end.
    Last,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Country,
    Region,
    City,
    Lat,
    Lon,
    Coordinates,
    /// A whole place, such as `Location: Bonn, Germany`.
    Place,
}

/// Labels are short; longer texts before a colon are sentences.
const MAX_LABEL_BYTES: usize = 64;

const COUNTRY: &[&str] = &[
    "country",
    "country name",
    "nation",
    "country territory",
    "pays",
    "land",
    "pais",
    "paese",
    "kraj",
    "ulke",
    "国家",
    "國家",
    "国",
    "國",
    "国名",
    "страна",
    "χωρα",
    "나라",
    "국가",
    "देश",
    "quoc gia",
    "negara",
    "البلد",
    "الدوله",
    "دوله",
];
const REGION: &[&str] = &[
    "region",
    "state",
    "province",
    "prefecture",
    "state province",
    "state region",
    "region state",
    "province state",
    "administrative region",
    "admin1",
    "departement",
    "bundesland",
    "provincia",
    "estado",
    "regiao",
    "regione",
    "省",
    "省份",
    "州",
    "地区",
    "地域",
    "都道府県",
    "регион",
    "область",
    "provinsi",
    "tinh",
];
const CITY: &[&str] = &[
    "city",
    "city name",
    "town",
    "village",
    "municipality",
    "city town",
    "town city",
    "nearest city",
    "closest city",
    "nearest town",
    "ville",
    "stadt",
    "ciudad",
    "cidade",
    "citta",
    "stad",
    "miasto",
    "sehir",
    "城市",
    "都市",
    "市",
    "都市名",
    "город",
    "πολη",
    "도시",
    "शहर",
    "kota",
    "thanh pho",
    "المدینه",
    "مدینه",
];
const PLACE: &[&str] = &[
    "location",
    "place",
    "answer",
    "guess",
    "prediction",
    "position",
    "location guess",
    "lieu",
    "ort",
    "lugar",
    "luogo",
    "地点",
    "場所",
    "место",
];

/// Words before a label that change nothing: `Most likely city`, `2. Final answer`.
const DECORATION: &[&str] = &[
    "the",
    "most",
    "likely",
    "probable",
    "predicted",
    "estimated",
    "final",
    "best",
    "my",
    "guessed",
    "exact",
    "and",
    "is",
];

fn label(text: &str) -> Option<Label> {
    if text.len() > MAX_LABEL_BYTES {
        return None;
    }
    let key = fold(text);
    let words = key
        .split(' ')
        .skip_while(|w| DECORATION.contains(w) || w.bytes().all(|b| b.is_ascii_digit()));
    let name = words.collect::<Vec<_>>().join(" ");
    let tables = [
        (COUNTRY, Label::Country),
        (REGION, Label::Region),
        (CITY, Label::City),
        (&["lat", "latitude", "широта", "纬度"], Label::Lat),
        (&["lon", "lng", "long", "longitude", "долгота", "经度"], Label::Lon),
        (&["coordinates", "coordinate", "gps", "gps coordinates", "coords"], Label::Coordinates),
        (PLACE, Label::Place),
    ];
    tables.into_iter().find(|(names, _)| names.contains(&name.as_str())).map(|(_, label)| label)
}

/// Label and value of a segment such as `**Country**: France`; the value may be empty.
fn labelled(segment: &str) -> Option<(Label, &str)> {
    let separators = [":", "：", "=", " - ", " – ", " — ", " is "];
    let cut = separators.iter().filter_map(|s| segment.find(s).map(|at| (at, s.len()))).min();
    match cut {
        Some((at, len)) => Some((label(&segment[..at])?, &segment[at + len..])),
        // A table cell: the value is the next segment.
        None => Some((label(segment)?, "")),
    }
}

/// All labelled fields of a text.
pub(super) fn fields(text: &str, order: Order) -> Fields {
    let mut collector = Collector { order, fields: Fields::default(), open: None, done: false };
    for line in text.lines() {
        for segment in line.split([',', ';', '|', '，', '；', '、']) {
            collector.take(segment);
        }
        collector.end_line();
    }
    collector.flush();
    let position = collector.fields.position.and_then(|(lat, lon)| coordinates::checked(lat, lon));
    Fields { position, ..collector.fields }
}

/// True for exactly the two lines `country: X` and `city: Y`.
pub(super) fn is_contract(block: &str) -> bool {
    let lines: Vec<&str> = block.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let [country, city] = lines[..] else { return false };
    let given = |line: &str, label: &str| {
        line.strip_prefix(label).is_some_and(|value| !value.trim().is_empty())
    };
    given(country, "country:") && !country.contains("city:") && given(city, "city:")
}

/// Segments in turn; those without a label continue the value before them: `city: Washington, DC`.
struct Collector {
    order: Order,
    fields: Fields,
    open: Option<(Label, String)>,
    done: bool,
}

impl Collector {
    fn take(&mut self, segment: &str) {
        if self.done {
            return;
        }
        if let Some((label, value)) = labelled(segment) {
            self.flush();
            self.open = Some((label, value.trim().to_owned()));
        } else if let Some((_, value)) = &mut self.open {
            if !value.is_empty() {
                value.push_str(", ");
            }
            value.push_str(segment.trim());
        }
    }

    /// A label whose value is still empty waits for the next line.
    fn end_line(&mut self) {
        if self.open.as_ref().is_some_and(|(_, value)| clean(value).is_some() || !value.is_empty())
        {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let Some((label, value)) = self.open.take() else { return };
        let slot_taken = match label {
            Label::Country => self.fields.country.is_some(),
            Label::City => self.fields.city.is_some(),
            Label::Region => self.fields.region.is_some(),
            Label::Place => !self.fields.is_empty(),
            Label::Lat | Label::Lon | Label::Coordinates => false,
        };
        if slot_taken {
            match self.order {
                Order::First => {
                    self.done = true;
                    return;
                }
                // Another answer begins; the old one must not lend it a city.
                Order::Last => self.fields = Fields::default(),
            }
        }
        self.set(label, &value);
    }

    fn set(&mut self, label: Label, value: &str) {
        let name = clean(value);
        let fields = &mut self.fields;
        fields.refused |= name.is_none() && crate::refusal::is_refusal(value);
        match label {
            Label::Country => fields.country = name,
            Label::Region => fields.region = name,
            Label::City => fields.city = name,
            Label::Coordinates => fields.position = coordinates::pair(value),
            Label::Lat | Label::Lon => {
                let number = coordinates::number(value).unwrap_or(f64::NAN);
                let (lat, lon) = fields.position.unwrap_or((f64::NAN, f64::NAN));
                let both = if label == Label::Lat { (number, lon) } else { (lat, number) };
                fields.position = Some(both);
            }
            Label::Place => {
                let place = plain::parts(value);
                let refused = fields.refused;
                *fields = Fields { refused, ..place };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_folded() {
        for label in [COUNTRY, REGION, CITY, PLACE, DECORATION].concat() {
            assert_eq!(fold(label), label);
        }
    }
}
