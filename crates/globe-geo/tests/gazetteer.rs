//! The shipped data: who is found, who is preferred, and what damaged files do.
#![cfg(all(feature = "full", feature = "light"))]

use std::sync::LazyLock;

use globe_geo::{
    Error, Gazetteer, MatchKind, ParseStatus, Place, PlaceQuery, Precision, Sample, candidates,
    haversine_km, parse_answer,
};
use proptest::prelude::*;

static FULL: LazyLock<Gazetteer> = LazyLock::new(|| Gazetteer::full().expect("embedded file"));
static LIGHT: LazyLock<Gazetteer> = LazyLock::new(|| Gazetteer::light().expect("embedded file"));
const FULL_BYTES: &[u8] = include_bytes!("../data/full.gaz");
const LIGHT_BYTES: &[u8] = include_bytes!("../data/light.gaz");

fn given(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}

/// "" stands for not given.
fn locate(country: &str, region: &str, city: &str) -> Option<Place> {
    let query = PlaceQuery { country: given(country), region: given(region), city: given(city) };
    FULL.locate(&query)
}

/// Checks code, region, city and kind; "" stands for none.
#[track_caller]
fn finds(query: [&str; 3], expected: [&str; 3], kind: MatchKind) {
    let place = locate(query[0], query[1], query[2]).unwrap_or_else(|| panic!("{query:?}"));
    let got = [
        place.country_code.as_str(),
        place.region.as_deref().unwrap_or(""),
        place.city.as_deref().unwrap_or(""),
    ];
    assert_eq!((got, place.match_kind), (expected, kind), "{query:?}");
}

#[track_caller]
fn city_of(text: &str) -> (String, String) {
    let place = FULL.geocode(text).into_iter().next().unwrap_or_else(|| panic!("{text}"));
    (place.country_code, place.city.unwrap_or_default())
}

#[test]
fn exonyms_in_every_script() {
    for (name, city) in [
        ("Munich", "Munich"),
        ("München", "Munich"),
        ("Muenchen", "Munich"),
        ("Мюнхен", "Munich"),
        ("東京", "Tokyo"),
        ("القاهرة", "Cairo"),
        ("Αθήνα", "Athens"),
        ("서울", "Seoul"),
        ("北京市", "Beijing"),
        ("ירושלים", "Jerusalem"),
        ("दिल्ली", "Delhi"),
        ("กรุงเทพมหานคร", "Bangkok"),
        ("Roma", "Rome"),
        ("Lisboa", "Lisbon"),
        ("Wien", "Vienna"),
        ("Praha", "Prague"),
        ("Firenze", "Florence"),
        ("Cologne", "Köln"),
        ("København", "Copenhagen"),
        ("Saigon", "Ho Chi Minh City"),
        ("Bombay", "Mumbai"),
        ("NYC", "New York City"),
        ("New York", "New York City"),
    ] {
        let place = locate("", "", name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(place.city.as_deref(), Some(city), "{name}");
    }
}

#[test]
fn namesakes_are_told_apart_by_country_then_region_then_population() {
    use MatchKind::{Alternate, Exact};
    finds(["France", "", "Paris"], ["FR", "Île-de-France", "Paris"], Exact);
    finds(["USA", "", "Paris"], ["US", "Texas", "Paris"], Exact);
    finds(["", "", "Paris"], ["FR", "Île-de-France", "Paris"], Exact);
    finds(["", "Texas", "Paris"], ["US", "Texas", "Paris"], Exact);
    finds(["US", "Illinois", "Springfield"], ["US", "Illinois", "Springfield"], Exact);
    finds(["US", "MA", "Springfield"], ["US", "Massachusetts", "Springfield"], Exact);
    finds(["United States", "", "Springfield"], ["US", "Missouri", "Springfield"], Exact);
    finds(["UK", "", "Birmingham"], ["GB", "England", "Birmingham"], Exact);
    finds(["USA", "Alabama", "Birmingham"], ["US", "Alabama", "Birmingham"], Exact);
    finds(["United States", "", "Birmingham"], ["US", "Alabama", "Birmingham"], Exact);
    finds(["Russia", "", "Saint Petersburg"], ["RU", "St.-Petersburg", "Saint Petersburg"], Exact);
    finds(["USA", "Florida", "St. Petersburg"], ["US", "Florida", "St. Petersburg"], Exact);
    finds(["USA", "", "Saint Petersburg"], ["US", "Florida", "St. Petersburg"], Exact);
    finds(["USA", "", "San José"], ["US", "California", "San Jose"], Exact);
    finds(["Germany", "Bayern", "München"], ["DE", "Bavaria", "Munich"], Alternate);
    let costa_rica = locate("Costa Rica", "", "San Jose").unwrap();
    assert_eq!(costa_rica.country_code, "CR");
    assert!(haversine_km((costa_rica.lat, costa_rica.lon), (9.93, -84.08)) < 10.0);
}

#[test]
fn georgia_is_a_country_and_a_state() {
    finds(["Georgia", "", ""], ["GE", "", ""], MatchKind::Country);
    finds(["Georgia", "", "Tbilisi"], ["GE", "Tbilisi", "Tbilisi"], MatchKind::Exact);
    finds(["USA", "Georgia", ""], ["US", "Georgia", ""], MatchKind::Region);
    finds(["Georgia", "", "Atlanta"], ["US", "Georgia", "Atlanta"], MatchKind::Exact);
    assert_eq!(city_of("Atlanta, Georgia"), ("US".into(), "Atlanta".into()));
    assert_eq!(city_of("Tbilisi, Georgia"), ("GE".into(), "Tbilisi".into()));
    let codes: Vec<_> = FULL.geocode("Georgia").into_iter().map(|p| p.country_code).collect();
    assert_eq!(codes[..2], ["GE", "US"]);
}

#[test]
fn countries_by_name_code_and_alias() {
    for (name, code) in [
        ("NA", "NA"),
        ("Namibia", "NA"),
        ("DE", "DE"),
        ("deu", "DE"),
        ("Deutschland", "DE"),
        ("Federal Republic of Germany", "DE"),
        ("U.S.A.", "US"),
        ("United States of America", "US"),
        ("США", "US"),
        ("UK", "GB"),
        ("Great Britain", "GB"),
        ("Holland", "NL"),
        ("The Netherlands", "NL"),
        ("Czechia", "CZ"),
        ("Czech Republic", "CZ"),
        ("South Korea", "KR"),
        ("Republic of Korea", "KR"),
        ("한국", "KR"),
        ("DPRK", "KP"),
        ("Ivory Coast", "CI"),
        ("Côte d’Ivoire", "CI"),
        ("Democratic Republic of the Congo", "CD"),
        ("Republic of the Congo", "CG"),
        ("Congo", "CG"),
        ("Republic of China", "TW"),
        ("People's Republic of China", "CN"),
        ("中国", "CN"),
        ("日本", "JP"),
        ("Türkiye", "TR"),
        ("Turkey", "TR"),
        ("Myanmar (Burma)", "MM"),
        ("Россия", "RU"),
        ("España", "ES"),
        ("Ελλάδα", "GR"),
        ("Kingdom of Norway", "NO"),
        ("Niger", "NE"),
        ("Nigeria", "NG"),
        ("Dominica", "DM"),
        ("Dominican Republic", "DO"),
        ("Guinea", "GN"),
        ("Guinea-Bissau", "GW"),
        ("Papua New Guinea", "PG"),
        ("Germny", "DE"),
        ("Antarctica", "AQ"),
        ("Kosovo", "XK"),
    ] {
        finds([name, "", ""], [code, "", ""], MatchKind::Country);
    }
}

#[test]
fn a_country_alone_is_its_largest_city_with_the_countrys_size() {
    let place = locate("France", "", "").unwrap();
    assert!(haversine_km((place.lat, place.lon), (48.8534, 2.3488)) < 1.0);
    // sqrt(547,030 km2 / pi)
    assert_eq!(place.radius_km, 417.0);
    let state = locate("USA", "Texas", "").unwrap();
    assert_eq!((state.region.as_deref(), state.match_kind), (Some("Texas"), MatchKind::Region));
    assert!(state.radius_km > 200.0 && state.radius_km < 900.0);
    finds(["Scotland", "", ""], ["GB", "Scotland", ""], MatchKind::Region);
    finds(["Scotland", "", "Perth"], ["GB", "Scotland", "Perth"], MatchKind::Exact);
}

#[test]
fn a_city_outside_the_country_is_flagged() {
    finds(["Germany", "", "Lyon"], ["DE", "", ""], MatchKind::CityElsewhere);
    finds(["Japan", "", "Qwxyzzy"], ["JP", "", ""], MatchKind::CityUnknown);
    finds(["USA", "Texas", "Qwxyzzy"], ["US", "Texas", ""], MatchKind::CityUnknown);
    finds(
        ["Narnia", "", "Lyon"],
        ["FR", "Auvergne-Rhône-Alpes", "Lyon"],
        MatchKind::CountryUnknown,
    );
    assert_eq!(locate("Narnia", "", "Qwxyzzy"), None);
    assert_eq!(locate("unknown", "N/A", "?"), None);
    assert!(MatchKind::CityElsewhere.is_fallback() && !MatchKind::CityElsewhere.is_city());
}

#[test]
fn qualifiers_and_one_typo_are_forgiven() {
    use MatchKind::{Region, Typo, Variant};
    finds(["UK", "", "Greater Manchester Area"], ["GB", "England", "Manchester"], Variant);
    finds(["Mexico", "", "Mexico City"], ["MX", "Mexico City", "Mexico City"], MatchKind::Exact);
    finds(["Japan", "", "Osaka City"], ["JP", "Osaka", "Osaka"], Variant);
    finds(["Germany", "", "Stutgart"], ["DE", "Baden-Wurttemberg", "Stuttgart"], Typo);
    finds(["", "", "Amsterdma"], ["NL", "North Holland", "Amsterdam"], Typo);
    finds(["Indonesia", "", "Bali"], ["ID", "Bali", ""], Region);
    for name in ["Washington, D.C.", "Washington DC", "Washington D.C."] {
        let place = locate("USA", "", name).unwrap();
        assert_eq!(place.city.as_deref(), Some("Washington"), "{name}");
        assert!(haversine_km((place.lat, place.lon), (38.895, -77.036)) < 5.0, "{name}");
    }
    // An exact name elsewhere is no typing error here.
    finds(["Austria", "", "Vienne"], ["AT", "Vienna", "Vienna"], MatchKind::Alternate);
    assert_eq!(locate("", "", "Parix"), None, "too short for a typo");
}

#[test]
fn territories_have_their_own_code_and_are_found_under_their_state() {
    for (country, city, code) in [
        ("China", "Hong Kong", "HK"),
        ("Hong Kong", "Hong Kong", "HK"),
        ("China", "Macau", "MO"),
        ("Taiwan", "Taipei", "TW"),
        ("Denmark", "Nuuk", "GL"),
        ("Greenland", "Nuuk", "GL"),
        ("USA", "Bayamón", "PR"),
        ("France", "Nouméa", "NC"),
    ] {
        let place = locate(country, "", city).unwrap();
        assert_eq!((place.country_code.as_str(), place.city.is_some()), (code, true), "{city}");
    }
    finds(["Hong Kong", "", ""], ["HK", "", ""], MatchKind::Country);
    // The state's own city goes before a larger one of its territory.
    let saint_denis = locate("France", "", "Saint-Denis").unwrap();
    assert_eq!(saint_denis.country_code, "FR");
}

#[test]
fn free_text() {
    for (text, code, city) in [
        ("Paris, France", "FR", "Paris"),
        ("Paris", "FR", "Paris"),
        ("Paris, Texas", "US", "Paris"),
        ("Paris, TX", "US", "Paris"),
        ("Paris, TX, USA", "US", "Paris"),
        ("Paris Texas", "US", "Paris"),
        ("France, Paris", "FR", "Paris"),
        ("France", "FR", ""),
        ("DE", "DE", ""),
        ("London, Ontario, Canada", "CA", "London"),
        ("London, ON", "CA", "London"),
        ("Granada", "ES", "Granada"),
        ("Washington", "US", "Washington"),
        ("California", "US", ""),
        ("Lyon, Germany", "DE", ""),
        ("Lomdon, England", "GB", "London"),
        ("東京, 日本", "JP", "Tokyo"),
        ("Hong Kong, China", "HK", "Hong Kong"),
    ] {
        assert_eq!(city_of(text), (code.to_owned(), city.to_owned()), "{text}");
    }
    let springfields = FULL.geocode("Springfield, USA");
    assert!(springfields.len() > 3 && springfields.is_sorted_by_key(|p| u64::MAX - p.population));
    assert!(FULL.geocode("Qwxyzzy").is_empty() && FULL.geocode(" , ").is_empty());
}

#[test]
fn the_light_tier_is_a_subset_that_answers_alike() {
    assert_eq!((FULL.version(), LIGHT.version()), ("2026.11.1-full", "2026.11.1-light"));
    assert!(LIGHT.n_cities() > 30_000 && FULL.n_cities() > 2 * LIGHT.n_cities());
    assert!(FULL_BYTES.len() <= 5_000_000 && LIGHT_BYTES.len() <= 2_500_000);
    for text in ["München, Germany", "Paris, Texas", "France", "Tuvalu", "Scotland"] {
        assert_eq!(FULL.geocode(text)[0], LIGHT.geocode(text)[0], "{text}");
    }
}

#[test]
fn loads_fast() {
    let start = std::time::Instant::now();
    Gazetteer::full().unwrap();
    let elapsed = start.elapsed();
    println!("full tier loaded in {elapsed:?}");
    // Headroom for a busy machine; unloaded it is a fraction of this.
    assert!(elapsed.as_secs_f64() < 2.0, "{elapsed:?}");
}

#[test]
fn damage_is_noticed() {
    for at in [10, 41, 42, 60, LIGHT_BYTES.len() / 2, LIGHT_BYTES.len() - 1] {
        let mut bytes = LIGHT_BYTES.to_vec();
        bytes[at] ^= 1;
        let error = Gazetteer::from_bytes(&bytes).unwrap_err();
        assert!(matches!(error, Error::Checksum { .. }), "byte {at}: {error}");
        assert!(error.to_string().contains("fetch it again"));
    }
    for len in [0, 7, 8, 9, 41, 42, 1000, LIGHT_BYTES.len() - 1] {
        let error = Gazetteer::from_bytes(&LIGHT_BYTES[..len]).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("gazetteer: "), "{len} bytes: {message}");
    }
    assert!(matches!(Gazetteer::from_bytes(b"\x89PNG"), Err(Error::NotAGazetteer { size: 4 })));
}

#[test]
fn rounding_keeps_votes_and_drops_detail() {
    let texts = ["Lyon, France", "Marseille, France", "Paris, France", "Houston, Texas, USA"];
    let samples = texts.map(|t| Sample::from_answer(&parse_answer(t), &FULL));
    assert!(samples.iter().all(|s| s.status == ParseStatus::Lenient));
    let outcome = candidates(&samples, 2);
    assert_eq!(outcome.candidates.len(), 2);

    let country = outcome.rounded(Precision::Country, &FULL);
    let shown: Vec<_> =
        country.candidates.iter().map(|c| (c.country_code.as_str(), c.votes, c.rank)).collect();
    assert_eq!(shown, [("FR", 3, 1), ("US", 1, 2)], "hidden candidates vote too");
    assert_eq!(country.candidates[0].confidence, 0.75);
    assert!(country.candidates.iter().all(|c| c.city.is_none() && c.region.is_none()));
    let france = locate("France", "", "").unwrap();
    let first = &country.candidates[0];
    assert_eq!((first.lat, first.radius_km), (france.lat, france.radius_km));

    let region = candidates(&samples[3..], 1).rounded(Precision::Region, &FULL);
    let texas = &region.candidates[0];
    assert_eq!((texas.region.as_deref(), texas.city.as_deref()), (Some("Texas"), None));
    assert!(texas.radius_km > 200.0);
    assert_eq!(outcome.rounded(Precision::City, &FULL), outcome);
}

fn check_place(place: &Place) {
    assert!(place.lat.abs() <= 90.0 && place.lon.abs() <= 180.0);
    assert!((place.lat, place.lon) != (0.0, 0.0) && place.radius_km >= 2.0);
    assert!(!place.country.is_empty() && place.country_code.len() == 2);
    assert_eq!(place.city.is_some(), place.match_kind.is_city());
}

/// Real names and noise, so that both paths run.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[A-Z][a-z]{1,8}( [A-Z][a-z]{1,8})?",
        prop::sample::select(vec![
            "Paris",
            "Georgia",
            "US",
            "St. John's",
            "Washington, D.C.",
            "東京",
            "Congo",
            "Bali",
            "Springfield",
            "Saint",
            "City",
            ", ,",
            "N/A",
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_query_is_answered_in_range(
        country in prop::option::of(name()),
        region in prop::option::of(name()),
        city in prop::option::of(name()),
    ) {
        let query = PlaceQuery {
            country: country.as_deref(),
            region: region.as_deref(),
            city: city.as_deref(),
        };
        LIGHT.locate(&query).iter().for_each(check_place);
    }

    #[test]
    fn any_text_is_geocoded_in_range(text in prop::collection::vec(name(), 0..4)) {
        let places = LIGHT.geocode(&text.join(", "));
        prop_assert!(places.len() <= 10);
        places.iter().for_each(check_place);
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Gazetteer::from_bytes(&bytes).is_err());
    }

    #[test]
    fn any_flipped_bit_is_noticed(at in 0..LIGHT_BYTES.len(), bit in 0..8_u32) {
        let mut bytes = LIGHT_BYTES.to_vec();
        bytes[at] ^= 1 << bit;
        prop_assert!(Gazetteer::from_bytes(&bytes).is_err());
    }
}
