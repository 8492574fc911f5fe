use std::sync::Arc;

use globe_geo::Gazetteer;

use super::*;
use crate::data::ImageSource;

fn sample() -> Sample {
    Sample {
        id: "1".into(),
        image: ImageSource::Bytes(Arc::from(&b"\xff\xd8"[..])),
        country: Some("France".into()),
        city: Some("Paris".into()),
        position: Some((48.8566, 2.3522)),
        clues: ["a palm tree", "road sign", "mansard roofs"].map(String::from).to_vec(),
        response: None,
        label: None,
    }
}

fn lexicon() -> Lexicon {
    Lexicon::new(["palm tree", "road sign", "mansard roof", "bus", "temple", "beach", "sign"])
}

fn score(reward: &mut dyn Reward, sample: &Sample, text: &str) -> Option<f64> {
    reward.score(&[Attempt { sample, text, truncated: false }]).unwrap()[0]
}

fn geo(form: GeoForm) -> Geo {
    Geo::new(Arc::new(Gazetteer::full().unwrap()), form)
}

fn names() -> Geo {
    geo(GeoForm::Names { alpha: 0.8, names: NameMatch::Gazetteer })
}

fn answer(country: &str, city: &str) -> String {
    format!("<think>A thought.</think>\n<answer>\ncountry: {country}\ncity: {city}\n</answer>")
}

#[track_caller]
fn assert_close(got: Option<f64>, want: f64, context: &str) {
    assert!(got.is_some_and(|g| (g - want).abs() < 1e-9), "{context}: {got:?} {want}");
}

#[test]
fn geo_is_globes_rule_by_meaning() {
    let mut geo = names();
    for (truth, given, want) in [
        (("France", "Paris"), ("France", "Paris"), 1.0),
        (("France", "Paris"), ("france", "City of Paris"), 1.0),
        (("France", "Paris"), ("France", "Lyon"), 0.2),
        (("France", "Paris"), ("Germany", "Paris"), 0.0),
        (("China", "Hefei"), ("China", "Hefei City"), 1.0),
        (("Germany", "München"), ("Deutschland", "Munich"), 1.0),
        (("United States", "Washington"), ("USA", "Washington, D.C."), 1.0),
        (("United States", "Paris"), ("United States", "Paris, Texas"), 1.0),
        (("Japan", "Tokyo"), ("Japan", "Shibuya, Tokyo"), 0.2),
        (("South Korea", "Seoul"), ("Korea, South", "서울"), 1.0),
        (("Hong Kong", "Hong Kong"), ("Hong Kong, China", "Hong Kong"), 1.0),
        (("Bosnia and Herzegovina", "Sarajevo"), ("Bosnia and Herzegovina", "Sarajevo"), 1.0),
        (("Trinidad and Tobago", "Port of Spain"), ("Trinidad and Tobago", "Port of Spain"), 1.0),
        // Not in the gazetteer: letters decide.
        (("France", "Xyzzyville"), ("France", "Xyzzyvill"), 1.0),
        (("France", "Xyzzyville"), ("France", "Paris"), 0.2),
        // Hedges.
        (("France", "Paris"), ("France, Germany, Italy", "Paris"), 0.0),
        (("France", "Paris"), ("France or Germany", "Paris"), 0.0),
        (("France", "Paris"), ("France", "Paris, Lyon, Marseille"), 0.2),
        (("France", "Paris"), ("France", "Paris or Lyon"), 0.2),
        (("France", "Paris"), ("France", "Lyon / Paris"), 0.2),
        // One typing error is forgiven to users, not to a policy.
        (("France", "Marseille"), ("France", "Marsseille"), 0.2),
    ] {
        let truth = Sample {
            country: Some(truth.0.into()),
            city: Some(truth.1.into()),
            position: None,
            ..sample()
        };
        let got = score(&mut geo, &truth, &answer(given.0, given.1));
        assert_close(got, want, &format!("{given:?}"));
    }
}

#[test]
fn geo_without_truth_says_nothing_and_without_city_asks_for_the_country() {
    let truth = Sample { city: None, ..sample() };
    assert_close(score(&mut names(), &truth, &answer("France", "Lyon")), 1.0, "no city");
    let nothing = Sample { country: None, city: None, position: None, ..sample() };
    for text in ["", &answer("France", "Paris")] {
        assert_eq!(score(&mut names(), &nothing, text), None);
        let mut distance = geo(GeoForm::Distance { tau_km: 100.0 });
        assert_eq!(score(&mut distance, &nothing, text), None);
    }
}

#[test]
fn geo_by_distance_falls_with_kilometres() {
    let mut geo = geo(GeoForm::Distance { tau_km: 200.0 });
    let at = |geo: &mut Geo, country: &str, city: &str| {
        score(geo, &sample(), &answer(country, city)).unwrap()
    };
    let (paris, lyon, tokyo) = (
        at(&mut geo, "France", "Paris"),
        at(&mut geo, "France", "Lyon"),
        at(&mut geo, "Japan", "Tokyo"),
    );
    // Lyon is 392 km away.
    assert!(paris > 0.97 && (lyon - (-392.0f64 / 200.0).exp()).abs() < 0.01 && tokyo < 1e-10);
    assert_eq!(at(&mut geo, "France", "Paris or Lyon"), 0.0);
    let unnamed = Sample { position: None, ..sample() };
    assert!(score(&mut geo, &unnamed, &answer("France", "Paris")).unwrap() > 0.999);
}

#[test]
fn letters_are_globes_released_rule() {
    let mut geo = geo(GeoForm::Names { alpha: 0.8, names: NameMatch::Letters });
    let truth = Sample { country: Some("China".into()), city: Some("Hefei".into()), ..sample() };
    assert_close(score(&mut geo, &truth, &answer("China", "hefei")), 1.0, "case");
    assert_close(score(&mut geo, &truth, &answer("China", "Hefei City")), 0.2, "its weakness");
}

const THOUGHT: &str = "I can see a palm tree beside the wide street. The mansard roofs behind it \
    point to a French city. A road sign in French stands on the corner of it.";

fn with_thought(thought: &str) -> String {
    format!("<think>{thought}</think><answer>\ncountry: France\ncity: Paris\n</answer>")
}

#[test]
fn visual_rewards_statements_that_are_true() {
    let mut visual = Visual::new(lexicon(), VisualForm::F1);
    let mut at = |thought: &str| score(&mut visual, &sample(), &with_thought(thought)).unwrap();
    assert_eq!(at(THOUGHT), 1.0);
    // Two of three, and one wrong.
    let mixed = "There is a palm tree near the road. Behind it stand some mansard roofs. \
        In front of all that waits a bus.";
    assert!((at(mixed) - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(at("Somewhere warm I suppose, but nothing helps me."), 0.0);
    // Part of a word is not the word; a denial states nothing.
    assert_eq!(at("The business of palms treeing is a resigned mansardist one."), 0.0);
    assert_eq!(at("There is certainly no palm tree in this picture at all."), 0.0);
}

#[test]
fn visual_forms_differ_as_named() {
    let text = with_thought("There is a palm tree near the road. A big bus waits in front of it.");
    for (form, want) in
        [(VisualForm::Recall, 1.0 / 3.0), (VisualForm::Precision, 0.5), (VisualForm::F1, 0.4)]
    {
        let got = score(&mut Visual::new(lexicon(), form), &sample(), &text);
        assert_close(got, want, &format!("{form:?}"));
    }
    let bare = Sample { clues: vec![], ..sample() };
    assert_eq!(score(&mut Visual::new(lexicon(), VisualForm::F1), &bare, &text), None);
}

struct Fixed(YesNo, Vec<String>);

impl Judge for Fixed {
    fn judge(&mut self, requests: &[JudgeRequest<'_>]) -> Result<Vec<YesNo>> {
        self.1.extend(requests.iter().map(|r| r.question.to_owned()));
        Ok(vec![self.0; requests.len()])
    }
}

#[test]
fn a_verifier_saves_true_clues_nobody_annotated() {
    let text = with_thought("There is a palm tree near the road. A big bus waits in front of it.");
    for (yes, want) in [(1.0, 1.0), (-1.0, 0.5)] {
        let visual = Visual::new(lexicon(), VisualForm::Precision);
        let mut visual = visual.with_verifier(Fixed(YesNo { yes, no: 0.0 }, vec![]));
        assert_close(score(&mut visual, &sample(), &text), want, "verifier");
    }
}

#[test]
fn locatability_asks_about_the_thought_only() {
    let judge = Fixed(YesNo { yes: 0.0, no: 0.0 }, vec![]);
    let mut reward = Locatability::new(judge);
    assert_close(score(&mut reward, &sample(), &with_thought(THOUGHT)), 0.5, "even");
    assert_close(score(&mut reward, &sample(), "no thought"), 0.0, "no thought");
    let neither = f64::NEG_INFINITY;
    let mut silent = Locatability::new(Fixed(YesNo { yes: neither, no: neither }, vec![]));
    assert_eq!(score(&mut silent, &sample(), &with_thought(THOUGHT)), None);
}

struct Down;

impl Judge for Down {
    fn judge(&mut self, _: &[JudgeRequest<'_>]) -> Result<Vec<YesNo>> {
        Err(Error::Judge { url: "http://x".into(), reason: "refused".into() })
    }
}

#[test]
fn a_judge_that_fails_is_an_error() {
    let text = with_thought(THOUGHT);
    let sample = sample();
    let attempts = [Attempt { sample: &sample, text: &text, truncated: false }];
    let mut set = RewardSet::new(Combination::Additive).with(Locatability::new(Down), 0.5);
    assert!(matches!(set.score(&attempts), Err(Error::Judge { .. })));
}

const COUNTRIES: &str = "France, Germany, Italy, Spain, Portugal, Japan, China, Brazil, Kenya";

/// Texts that must earn nothing for place and format, whatever they contain.
fn attacks() -> Vec<(&'static str, String)> {
    let right = "country: France\ncity: Paris";
    vec![
        ("empty", String::new()),
        ("only tags", "<think></think><answer></answer>".into()),
        ("all countries listed", answer(COUNTRIES, "Paris, Lyon, Rome, Madrid, Tokyo")),
        (
            "a country per line",
            format!(
                "<think>A thought.</think><answer>{}\ncity: Paris</answer>",
                COUNTRIES.split(", ").map(|c| format!("country: {c}\n")).collect::<String>()
            ),
        ),
        ("answer before thought", format!("<answer>\n{right}\n</answer><think>{THOUGHT}</think>")),
        (
            "two answers",
            format!(
                "<think>{THOUGHT}</think><answer>\ncountry: Italy\ncity: Rome\n</answer><answer>\n{right}\n</answer>"
            ),
        ),
        ("answer in the thought", format!("<think><answer>\n{right}\n</answer></think>")),
        ("thought never ends", format!("<think>{THOUGHT}<answer>\n{right}\n</answer>")),
        ("no tags", right.into()),
    ]
}

#[test]
fn attacks_earn_neither_place_nor_format() {
    for (name, text) in attacks() {
        assert_close(score(&mut names(), &sample(), &text), 0.0, name);
        assert_close(
            score(&mut geo(GeoForm::Distance { tau_km: 100.0 }), &sample(), &text),
            0.0,
            name,
        );
        // A list of countries in the two lines keeps to the format: geo answers for it.
        if name != "all countries listed" {
            assert_close(score(&mut Format, &sample(), &text), 0.0, name);
        }
    }
    assert_close(score(&mut Format, &sample(), &answer("France", "Paris")), 1.0, "good");
    let one_line = "<think>A thought.</think><answer>country: France, city: Paris</answer>";
    assert_close(score(&mut names(), &sample(), one_line), 1.0, "one line is read");
    assert_close(score(&mut Format, &sample(), one_line), 0.0, "but is not the format");
}

#[test]
fn stuffing_clues_earns_nothing() {
    let listed = "palm tree, road sign, mansard roof, bus, temple, beach";
    let templated: String = ["palm tree", "road sign", "mansard roof", "bus", "temple", "beach"]
        .iter()
        .map(|clue| format!("I can see a {clue} in this photo right here. "))
        .collect();
    let fair =
        score(&mut Visual::new(lexicon(), VisualForm::F1), &sample(), &with_thought(THOUGHT));
    for form in [VisualForm::F1, VisualForm::Recall, VisualForm::Precision] {
        let mut visual = Visual::new(lexicon(), form);
        for text in [
            with_thought(listed),
            with_thought(&format!("Clues: {listed}")),
            with_thought(&listed.replace(", ", "\n")),
            with_thought(""),
            // The list after the thought, where nobody reasons.
            format!("<think>Hm.</think>{THOUGHT}<answer>\ncountry: France\ncity: Paris\n</answer>"),
            format!("<answer>\ncountry: France\ncity: Paris\n</answer><think>{THOUGHT}</think>"),
        ] {
            assert_close(score(&mut visual, &sample(), &text), 0.0, &text);
        }
    }
    // Whole sentences about everything: precision answers for it.
    let mut visual = Visual::new(lexicon(), VisualForm::F1);
    let stuffed = score(&mut visual, &sample(), &with_thought(&templated));
    assert_close(stuffed, 2.0 / 3.0, "templated");
    assert!(stuffed < fair);
}

struct Odd(Vec<Option<f64>>);

impl Reward for Odd {
    fn name(&self) -> &str {
        "odd"
    }

    fn score(&mut self, _: &[Attempt<'_>]) -> Result<Vec<Option<f64>>> {
        Ok(self.0.clone())
    }
}

#[test]
fn sums_leave_out_what_is_missing() {
    let sample = sample();
    let (good, bad) = (answer("France", "Paris"), "country: France\ncity: Paris".to_owned());
    let attempts = [&good, &bad].map(|text| Attempt { sample: &sample, text, truncated: false });
    let set =
        |odd: Vec<Option<f64>>, how| RewardSet::new(how).with(Odd(odd), 0.5).with(Format, 1.0);
    let scores = set(vec![None, Some(2.0)], Combination::Additive).score(&attempts).unwrap();
    assert_eq!(scores.totals, [Some(1.0), Some(1.0)]);
    assert_eq!((scores.missing(), scores.names), (vec![1, 0], vec!["odd".into(), "format".into()]));
    let gated = set(vec![None, Some(2.0)], Combination::Gated).score(&attempts).unwrap();
    assert_eq!(gated.totals, [Some(1.0), Some(0.0)]);
    let mut only = RewardSet::new(Combination::Additive).with(Odd(vec![None, None]), 1.0);
    assert_eq!(only.score(&attempts).unwrap().totals, [None, None]);
    for odd in [vec![None], vec![Some(f64::NAN), None]] {
        let error = set(odd, Combination::Additive).score(&attempts).unwrap_err();
        assert!(error.to_string().starts_with("reward `odd`"), "{error}");
    }
}
