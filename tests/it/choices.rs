//! Variables and options choose how a model is computed: the choice is reported, and the tokens stay.

use std::process::Command;

use globe_ops::Variant;
use globe_tests::{Golden, assert_close_scaled};
use serde_json::{Value, json};

use crate::cli::{command, globe, last_logits, run};
use crate::convert::converted;
use crate::packed_model::{LOGIT_TOL, tolerance};

/// Of the largest logit: keys and values with 11 bits of mantissa.
const CACHE_TOL: f32 = 2e-3;

const BENCH: &str =
    "bench --model tied --prompt 20 --tokens 8 --batch 1 --image 0 --repeats 1 --json";

/// Each variable with the field of `globe devices` that names what is chosen.
const VARIABLES: [(&str, &str); 3] =
    [("GLOBE_LINEAR", "linear"), ("GLOBE_REPLAY", "replay"), ("GLOBE_REDUCE", "reduce")];

/// A variable and what it is set to, if one is.
type Setting<'a> = Option<(&'a str, &'a str)>;

/// What a command prints with one variable set at most.
fn report(set: Setting<'_>, mut command: Command) -> Value {
    for (variable, _) in VARIABLES {
        command.env_remove(variable);
    }
    command.envs(set);
    run(command).expect(0).json()
}

/// What `globe devices` says of the adapter that every run here takes.
fn adapter(set: Setting<'_>) -> Value {
    let devices = report(set, command(["devices", "--json"]));
    let mut adapters = devices["adapters"].as_array().unwrap().iter();
    adapters.find(|adapter| adapter["name"] == devices["auto"]).unwrap().clone()
}

/// What the adapter can be asked for.
fn choices(adapter: &Value, field: &str) -> Vec<String> {
    let choices = adapter[format!("{field}_choices")].as_array().unwrap().iter();
    choices.map(|choice| choice.as_str().unwrap().to_owned()).collect()
}

/// What `globe logits` says to the prompt of the golden `untied`.
fn logits(set: Setting<'_>, model: &str, options: &str) -> Value {
    let line = format!("logits --model {model} --image images/plain_56x84.png --json {options}");
    let mut command = command(line.split_whitespace());
    command.args(["--prompt", "Where was this photo taken?"]);
    report(set, command)
}

/// What `globe locate` says of a photo, the same each time.
fn locate(options: &str) -> Value {
    let line = "locate images/photo.jpg --model window56 --samples 2 --max-tokens 8 --temperature 0 \
                --format json --quiet";
    globe(&format!("{line} {options}")).expect(3).json()[0].clone()
}

/// Device memory in use at the end of a phase of `globe locate`.
fn bytes_in_use(located: &Value, phase: &str) -> u64 {
    let mut phases = located["memory"].as_array().unwrap().iter();
    phases.find(|of| of["phase"] == phase).unwrap()["device_bytes_in_use"].as_u64().unwrap()
}

#[test]
fn what_is_chosen_is_reported() {
    let default = adapter(None);
    for (variable, field) in VARIABLES {
        let choices = choices(&default, field);
        assert!(choices.iter().any(|choice| default[field] == *choice), "{default}");
        for choice in choices {
            let chosen = adapter(Some((variable, choice.as_str())));
            assert_eq!(chosen[field], choice, "{variable}");
        }
    }
    for (variable, field, measured) in
        [("GLOBE_LINEAR", "linear", "kernels"), ("GLOBE_REPLAY", "replay", "replay")]
    {
        for choice in choices(&default, field) {
            let set = Some((variable, choice.as_str()));
            let bench = report(set, command(BENCH.split_whitespace()));
            assert_eq!(bench[measured], choice, "{variable}");
        }
    }
}

#[test]
fn every_choice_of_kernels_answers_and_those_that_do_not_round_as_the_default() {
    let folder = converted("untied", "--bits 4 --quiet");
    let model = folder.path().to_str().unwrap();
    let expected = logits(None, model, "");
    for name in choices(&adapter(None), "linear") {
        let variant = Variant::ALL.into_iter().find(|variant| variant.name() == name).unwrap();
        let got = logits(Some(("GLOBE_LINEAR", name.as_str())), model, "");
        let [got_logits, expected_logits] = [&got, &expected].map(last_logits);
        assert_close_scaled(&name, &got_logits, &expected_logits, tolerance(variant));
        if variant.rounds() {
            assert!(got_logits != expected_logits, "{name}: nothing was rounded");
        } else {
            assert_eq!(got["greedy"], expected["greedy"], "{name}");
        }
    }
}

#[test]
fn every_choice_of_replays_and_sums_gives_the_tokens_of_the_default() {
    let (adapter, expected) = (adapter(None), logits(None, "untied", ""));
    for choice in choices(&adapter, "replay") {
        let got = logits(Some(("GLOBE_REPLAY", choice.as_str())), "untied", "");
        assert!(got == expected, "{choice}: the same kernels gave other bits");
    }
    for choice in choices(&adapter, "reduce") {
        let got = logits(Some(("GLOBE_REDUCE", choice.as_str())), "untied", "");
        assert_eq!(got["greedy"], expected["greedy"], "{choice}");
        assert_close_scaled(&choice, &last_logits(&got), &last_logits(&expected), LOGIT_TOL);
    }
}

#[test]
fn the_reference_gives_the_tokens_of_the_default() {
    let golden = Golden::open("untied");
    for options in ["", "--reference", "--reference --device cpu"] {
        let got = logits(None, "untied", options);
        for field in ["input_ids", "greedy"] {
            assert_eq!(got[field], json!(golden.ints(field)), "{field} {options}");
        }
        let expected = golden.floats("last_logits");
        let what = format!("logits {options}");
        assert_close_scaled(&what, &last_logits(&got), &expected, LOGIT_TOL);
    }

    let (default, reference) = (locate(""), locate("--reference"));
    assert_eq!(default["answers"], reference["answers"]);
    let [stored, widened] = [&default, &reference].map(|located| bytes_in_use(located, "load"));
    assert!(widened > stored, "f32 takes more than the f16 that is stored: {widened}, {stored}");
}

#[test]
fn a_cache_of_16_bits_is_half_as_large_by_every_report() {
    let inspect =
        |bits: u32| globe(&format!("inspect window56 --cache-bits {bits} --json")).expect(0).json();
    let number = |report: &Value, pointer: &str| report.pointer(pointer).unwrap().as_u64().unwrap();
    let full = inspect(32);
    let small = inspect(16);
    let [cache, half] = [&full, &small].map(|report| number(report, "/memory/cache"));
    // The cache has a table of angles besides, in f32 either way.
    let [a_thousand, fewer] =
        [&full, &small].map(|report| number(report, "/cache_bytes_per_1000_tokens"));
    assert_eq!(a_thousand, 2 * fewer);
    let keys = a_thousand / 1000;
    let tokens = cache / (keys + 4 * number(&full, "/text/head_dim"));
    assert_eq!(cache - half, tokens * keys / 2);

    let read_per_step = |bits: u32| {
        let bench = globe(&format!("{BENCH} --cache-bits {bits}")).expect(0).json();
        number(&bench, "/decode/0/bytes_per_step") - number(&bench, "/weight_bytes_per_token")
    };
    assert_eq!(read_per_step(32), 2 * read_per_step(16));

    let [held, halved] =
        [32, 16].map(|bits| bytes_in_use(&locate(&format!("--cache-bits {bits}")), "decode"));
    assert!(halved < held, "{halved}, {held}");
}

#[test]
fn logits_by_a_cache_of_16_bits_are_close() {
    let [full, half] = [32, 16].map(|bits| logits(None, "untied", &format!("--cache-bits {bits}")));
    assert!(full == logits(None, "untied", ""), "32 bits are the default");
    let [expected, got] = [&full, &half].map(last_logits);
    assert!(got != expected, "nothing was rounded");
    assert_close_scaled("logits", &got, &expected, CACHE_TOL);
    assert_eq!(half["greedy"].as_array().unwrap().len(), 32);

    for (options, expected) in [
        ("16 --reference", "16-bit keys need the fast kernels"),
        ("16 --device cpu", "16-bit keys need the fast kernels"),
        ("8", "a cache of 8 bits does not exist; use 16 or 32"),
    ] {
        let line = format!("logits --model untied --prompt x --cache-bits {options}");
        let error = globe(&line).expect(2).stderr;
        assert!(error.contains(expected), "{error}");
    }
}
