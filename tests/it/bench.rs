//! `globe bench`: what it says is complete and fits together; how fast anything is stays untested.

use serde_json::Value;

use crate::cli::globe;

/// Every number of the report is finite, none is missing.
fn check_numbers(report: &Value, path: &str) {
    match report {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| check_numbers(value, &format!("{path}.{name}")));
        }
        Value::Array(items) => items.iter().for_each(|item| check_numbers(item, path)),
        Value::Number(n) => assert!(n.as_f64().unwrap() >= 0.0, "{path}: {n}"),
        _ => {}
    }
}

/// What the report always says; a field that is missing or null is no number.
const NUMBERS: [&str; 30] = [
    "/roof/copy_gigabytes_per_second",
    "/roof/gigaflops_per_second",
    "/weight_bytes_per_token",
    "/image/patches",
    "/image/dispatches",
    "/image/seconds/median",
    "/image/seconds/spread",
    "/image/tokens_per_second",
    "/image/gigaflops_per_second",
    "/image/share_of_arithmetic",
    "/image/bytes",
    "/image/share_of_copy_bandwidth",
    "/image/host_microseconds",
    "/prefill/dispatches",
    "/prefill/bytes",
    "/prefill/gigabytes_per_second",
    "/prefill/host_microseconds",
    "/prefill/seconds/median",
    "/prefill/tokens_per_second",
    "/prefill/share_of_arithmetic",
    "/decode/0/tokens_per_second",
    "/decode/0/bytes_per_step",
    "/decode/1/prefix_reads",
    "/decode/0/share_of_copy_bandwidth",
    "/decode/0/dispatches_per_step",
    "/decode/0/submits_per_step",
    "/decode/0/host_microseconds_per_step",
    "/decode/0/host_microseconds_replay",
    "/decode/1/record_milliseconds",
    "/device_bytes_in_use",
];

/// What is computed from other numbers of the report is what they give.
fn check_relations(report: &Value) {
    let of = |part: &Value, place: &str| part.pointer(place).and_then(Value::as_f64).unwrap();
    let near = |part: &Value, place: &str, expected: f64| {
        let got = of(part, place);
        assert!((got / expected - 1.0).abs() < 1e-3, "{place}: {got}, expected {expected}: {part}");
    };
    let [copied, multiplied] = ["/roof/copy_gigabytes_per_second", "/roof/gigaflops_per_second"]
        .map(|place| of(report, place));
    let per_second = |part: &Value, n: f64| {
        near(part, "/tokens_per_second", n / of(part, "/seconds/median"));
        assert!(of(part, "/seconds/best") <= of(part, "/seconds/median"), "{part}");
    };
    let arithmetic = |part: &Value| {
        near(part, "/share_of_arithmetic", of(part, "/gigaflops_per_second") / multiplied);
    };
    let bandwidth = |part: &Value| {
        near(part, "/share_of_copy_bandwidth", of(part, "/gigabytes_per_second") / copied);
    };
    let moved = |part: &Value, bytes: &str| {
        let rate = of(part, bytes) / of(part, "/seconds/median") / 1e9;
        near(part, "/gigabytes_per_second", rate);
        bandwidth(part);
    };
    for pass in [&report["image"], &report["prefill"]].into_iter().filter(|pass| pass.is_object()) {
        per_second(pass, of(pass, "/tokens"));
        arithmetic(pass);
        moved(pass, "/bytes");
    }
    for decode in report["decode"].as_array().unwrap() {
        per_second(decode, of(decode, "/batch"));
        near(decode, "/milliseconds_per_step", of(decode, "/seconds/median") * 1e3);
        moved(decode, "/bytes_per_step");
    }
    let train = &report["train"];
    if train.is_object() {
        for pass in [&train["forward"], &train["backward"]] {
            per_second(pass, of(train, "/tokens"));
            arithmetic(pass);
        }
        bandwidth(&train["optimiser"]);
        let [forward, backward] =
            ["/forward", "/backward"].map(|pass| of(train, &format!("{pass}/seconds/median")));
        near(train, "/backward_to_forward", backward / forward);
    }
}

#[test]
fn every_number_is_there_and_above_zero() {
    let line =
        "bench --model window56 --prompt 40 --tokens 8 --batch 1,3 --image 56 --repeats 5 --json";
    let report: Value = serde_json::from_str(&globe(line).expect(0).stdout).unwrap();
    for place in NUMBERS {
        let number = report.pointer(place).and_then(Value::as_f64);
        assert!(number.is_some_and(|n| n > 0.0), "{place}: {number:?}");
    }
    check_relations(&report);
    assert_eq!(report["host_peak_bytes"].is_u64(), cfg!(target_os = "linux"));
    assert_eq!(report["decode"][0]["submits_per_step"], 1, "counted, not computed");
    let phases: Vec<_> = report["memory"].as_array().unwrap().iter().map(|p| &p["phase"]).collect();
    assert_eq!(phases, ["roof", "load", "encode", "prefill", "decode", "decode"]);
}

#[test]
fn a_training_step_is_measured_beside_answers() {
    let line = "bench train --model tied --prompt 60 --tokens 12 --batch 1,3 --image 28 --repeats 2 \
                --json";
    let report: Value = serde_json::from_str(&globe(line).expect(0).stdout).unwrap();
    check_numbers(&report, "report");
    check_relations(&report);
    let batches: Vec<_> =
        report["decode"].as_array().unwrap().iter().map(|d| d["batch"].as_u64()).collect();
    assert_eq!(batches, [Some(1), Some(3)]);
    for decode in report["decode"].as_array().unwrap() {
        assert_eq!(decode["submits_per_step"], 1);
        assert!(decode["dispatches_per_step"].as_u64().unwrap() <= 2 * 8 + 10);
        assert!(decode["tokens_per_second"].as_f64().unwrap() > 0.0);
    }
    let train = &report["train"];
    assert_eq!([&train["answers"], &train["tokens"]], [3, 60 + 3 * 11]);
    for phase in ["forward", "backward"] {
        assert!(train[phase]["share_of_arithmetic"].as_f64().unwrap() > 0.0, "{train}");
    }
    assert!(train["optimiser"]["share_of_copy_bandwidth"].as_f64().unwrap() > 0.0, "{train}");
    let [peak, planned] =
        ["device_peak_bytes", "planned_bytes"].map(|name| train[name].as_f64().unwrap());
    assert!((peak / planned - 1.0).abs() <= 0.05, "{peak} bytes of {planned} planned");
}

#[test]
fn the_reference_path_is_measured_one_answer_at_a_time() {
    let line =
        "bench --model window56 --reference --prompt 40 --tokens 6 --image 56 --repeats 2 --json";
    let report: Value = serde_json::from_str(&globe(line).expect(0).stdout).unwrap();
    check_numbers(&report, "report");
    check_relations(&report);
    assert_eq!((&report["kernels"], &report["decode"][1]), (&"plain".into(), &Value::Null));
    let decode = &report["decode"][0];
    assert_eq!((&decode["batch"], &decode["submits_per_step"]), (&1.into(), &Value::Null));
    assert!(decode["tokens_per_second"].as_f64().unwrap() > 0.0);
    let stored: Value =
        serde_json::from_str(&globe(&line.replace(" --reference", "")).expect(0).stdout).unwrap();
    let weights = |report: &Value| report["weight_bytes_per_token"].as_u64().unwrap();
    assert!(weights(&report) > weights(&stored), "16 bits were widened to 32");
    globe(&format!("{line} --batch 2")).expect(2);
    globe("bench --shape 0.5b --reference").expect(2);
}

#[test]
fn people_read_the_same_in_lines() {
    let run =
        globe("bench train --model tied --prompt 40 --tokens 8 --batch 2 --image 0 --repeats 1");
    let text = run.expect(0).stdout;
    for line in
        ["roof ", "prefill ", "decode ", "train ", "forward ", "backward ", "adamw ", "memory "]
    {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line}: {text}");
    }
    assert!(!text.lines().any(|l| l.starts_with("image ")), "the tower was left out: {text}");
    globe("bench trains").expect(2);
    globe("bench train --model images").expect(2);
}
