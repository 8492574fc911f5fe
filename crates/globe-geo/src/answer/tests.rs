//! What models write, and what is read from it.

use proptest::prelude::*;

use super::*;

fn names(text: &str) -> (Option<String>, Option<String>, Option<String>, ParseStatus) {
    let answer = parse_answer(text);
    (answer.country, answer.region, answer.city, answer.status)
}

#[track_caller]
fn reads(text: &str, country: &str, city: &str) {
    let answer = parse_answer(text);
    assert_eq!(
        (answer.country.as_deref().unwrap_or(""), answer.city.as_deref().unwrap_or("")),
        (country, city),
        "{text}"
    );
    assert!(answer.status.is_parsed(), "{text}");
}

#[test]
fn the_contract_is_strict() {
    let text = "<think>Left-hand traffic.</think>\n<answer>country: Japan\ncity: Osaka</answer>";
    let answer = parse_answer(text);
    assert_eq!(answer.status, ParseStatus::Strict);
    assert_eq!(answer.reasoning.as_deref(), Some("Left-hand traffic."));
    assert_eq!((answer.country.as_deref(), answer.city.as_deref()), (Some("Japan"), Some("Osaka")));
    assert_eq!((answer.lat, answer.lon), (None, None));
    let short = "<answer>\ncountry: Japan\ncity: Osaka\n</answer>";
    assert_eq!(parse_answer(short).status, ParseStatus::Strict);
}

#[test]
fn departures_from_the_contract_are_lenient() {
    for text in [
        "<think>x</think><answer>country: Japan, city: Osaka</answer>",
        "<THINK>x</THINK><ANSWER>Country: Japan\nCity: Osaka</ANSWER>",
        "<think>x</think><answer>country: Japan\ncity: Osaka",
        "<think>x</think>country: Japan\ncity: Osaka</answer>",
        "<think>x<answer>country: Japan\ncity: Osaka</answer>",
        "x</think><answer>country: Japan\ncity: Osaka</answer>",
        "<answer>city: Osaka\ncountry: Japan</answer>",
        "country: Japan\ncity: Osaka",
        "**Country**: Japan\n**City**: Osaka",
        "- **Country:** Japan\n- **City:** Osaka.",
        "1. Country - Japan\n2. City - Osaka",
        "Country = Japan; City = Osaka",
        "| Country | Japan |\n| City | Osaka |",
        "Country:\n  Japan\nCity:\n  Osaka",
        "The most likely country: Japan\nThe most likely city: Osaka",
        "Final answer: Osaka, Japan",
        "<answer>Osaka, Japan</answer>",
        "Osaka, Japan",
        "I see a castle.\nThis is most likely Osaka, Japan.",
        "The photo was taken in Osaka, Japan.",
        "{\"country\": \"Japan\", \"city\": \"Osaka\"}",
        "```json\n{\"country\": \"Japan\",\n \"city\": \"Osaka\"}\n```",
        "Here: {\"location\": {\"country\": \"Japan\", \"city\": \"Osaka\"}} Done.",
        "{\"country\": \"Japan\", \"city\": \"Osaka\"",
        "<answer>{\"Country\": \"Japan\", \"City\": \"Osaka\"}</answer>",
    ] {
        reads(text, "Japan", "Osaka");
        assert_eq!(parse_answer(text).status, ParseStatus::Lenient, "{text}");
    }
}

#[test]
fn labels_in_other_languages() {
    reads("Pays : France\nVille : Lyon", "France", "Lyon");
    reads("Land: Deutschland\nStadt: Köln", "Deutschland", "Köln");
    reads("País: España\nCiudad: Sevilla", "España", "Sevilla");
    reads("国家：法国\n城市：里昂", "法国", "里昂");
    reads("国：日本\n都市：大阪", "日本", "大阪");
    reads("Страна: Россия\nГород: Казань", "Россия", "Казань");
}

#[test]
fn values_keep_their_commas_and_regions_are_read() {
    reads("country: United States, city: Washington, D.C.", "United States", "Washington, D.C");
    let text = "country: USA\nstate: Texas\ncity: Paris";
    assert_eq!(
        names(text),
        (Some("USA".into()), Some("Texas".into()), Some("Paris".into()), ParseStatus::Lenient)
    );
    assert_eq!(names("<answer>Paris, Texas, USA</answer>").1.as_deref(), Some("Texas"));
    assert_eq!(names("{\"state\":\"Ohio\",\"city\":\"Dayton\"}").1.as_deref(), Some("Ohio"));
}

#[test]
fn a_missing_city_is_no_failure() {
    reads("<answer>country: Chad\ncity: unknown</answer>", "Chad", "");
    reads("country: NA", "NA", "");
    reads("<answer>France</answer>", "", "France");
}

#[test]
fn refusals() {
    for text in [
        "I cannot determine the location from this image.",
        "I'm sorry, but I can't help with that.",
        "unknown",
        "N/A",
        "Not sure.",
        "<think>Fog.</think><answer>unknown</answer>",
        "<think>Country: maybe France</think><answer>country: unknown\ncity: unknown</answer>",
        "<think>Maybe in Bonn, Germany.<answer>N/A</answer>",
        "{\"country\": null, \"city\": null}",
        "country: N/A\ncity: N/A",
        "无法确定",
    ] {
        let answer = parse_answer(text);
        assert_eq!(answer.status, ParseStatus::Refused, "{text}: {answer:?}");
        assert_eq!((answer.country, answer.city), (None, None), "{text}");
    }
}

#[test]
fn no_answer() {
    for text in [
        "",
        "  \n ",
        "<answer></answer>",
        "<think></think>",
        "A long street with many houses under a grey sky, seen from a car that drives slowly by.",
        "<think>The signs are French. This could be in Lyon, France or",
    ] {
        let answer = parse_answer(text);
        assert_eq!(answer.status, ParseStatus::NoAnswer, "{text}: {answer:?}");
        assert!(answer.query() == PlaceQuery::default());
    }
}

#[test]
fn the_last_answer_that_names_a_place_wins() {
    let two = "<answer>country: France\ncity: Lyon</answer> no, \
               <answer>country: Italy\ncity: Turin</answer>";
    reads(two, "Italy", "Turin");
    reads(&format!("{two}<answer></answer>"), "Italy", "Turin");
    reads("Country: France\nCity: Lyon\nCorrected:\nCountry: Italy", "Italy", "");
    let ranked = "<answer>1. Country: France, City: Lyon\n2. Country: Italy, City: Turin</answer>";
    reads(ranked, "France", "Lyon");
}

#[test]
fn positions() {
    for text in [
        "country: France\ncity: Paris\nlat: 48.85\nlon: 2.35",
        "country: France\ncity: Paris\ncoordinates: 48.85° N, 2.35° E",
        "{\"country\":\"France\",\"city\":\"Paris\",\"latitude\":48.85,\"longitude\":\"2.35\"}",
        "{\"country\":\"France\",\"city\":\"Paris\",\"coordinates\":[48.85,2.35]}",
    ] {
        reads(text, "France", "Paris");
        let answer = parse_answer(text);
        assert_eq!((answer.lat, answer.lon), (Some(48.85), Some(2.35)), "{text}");
    }
    let zero = parse_answer("country: France\nlat: 0\nlon: 0");
    assert_eq!((zero.lat, zero.lon), (None, None));
    assert_eq!(parse_answer("country: France\nlat: 48.85").lat, None, "half a position is none");
}

#[test]
fn status_names_are_stable() {
    let statuses =
        [ParseStatus::Strict, ParseStatus::Lenient, ParseStatus::Refused, ParseStatus::NoAnswer];
    let json = serde_json::to_string(&statuses).unwrap();
    assert_eq!(json, r#"["strict","lenient","refused","no_answer"]"#);
}

#[test]
fn long_texts_take_linear_time() {
    let start = std::time::Instant::now();
    for unit in ["<answer>", "<think>", "country: ", "{", "a, ", "city:\n", "<", "é:", " is "] {
        parse_answer(&unit.repeat(1_000_000 / unit.len()));
    }
    // Nine texts of a megabyte: seconds even when not optimised, hours when quadratic.
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

fn fragments() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<think>".to_owned()),
        Just("</think>".to_owned()),
        Just("<answer>".to_owned()),
        Just("</ANSWER>".to_owned()),
        Just("country:".to_owned()),
        Just("**City** - ".to_owned()),
        Just("{\"city\":".to_owned()),
        Just("}".to_owned()),
        Just("\n".to_owned()),
        Just("lat: ".to_owned()),
        "\\PC{0,8}",
        any::<f64>().prop_map(|x| x.to_string()),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn check_any(text: &str) {
    let answer = parse_answer(text);
    let something = answer.country.is_some()
        || answer.region.is_some()
        || answer.city.is_some()
        || answer.lat.is_some();
    assert_eq!(answer.status.is_parsed(), something, "{text:?}: {answer:?}");
    assert_eq!(answer.lat.is_some(), answer.lon.is_some());
    if let (Some(lat), Some(lon)) = (answer.lat, answer.lon) {
        assert!(lat.abs() <= 90.0 && lon.abs() <= 180.0 && (lat, lon) != (0.0, 0.0));
    }
}

proptest! {
    #[test]
    fn any_text_is_read_consistently(text in any::<String>()) {
        check_any(&text);
    }

    #[test]
    fn any_mix_of_markers_is_read_consistently(text in fragments()) {
        check_any(&text);
    }

    #[test]
    fn the_contract_round_trips(country in "[A-Z][a-z]{3,9}", city in "[A-Z][a-z]{3,9}") {
        prop_assume!(!is_blank(&country) && !is_blank(&city));
        let text = format!("<think>t</think>\n<answer>country: {country}\ncity: {city}</answer>");
        let answer = parse_answer(&text);
        prop_assert_eq!(answer.status, ParseStatus::Strict);
        prop_assert_eq!((answer.country, answer.city), (Some(country), Some(city)));
    }
}

#[test]
fn broken_text_is_no_name() {
    for text in ["\u{fffd}7\u{fffd}*", "country: 1234\ncity: \u{fffd}8", "<answer>42, 17</answer>"]
    {
        let answer = parse_answer(text);
        assert_eq!((answer.country, answer.city), (None, None), "{text}");
    }
}
