//! The command line as its users and other software see it: output, exit codes, files.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use globe_tests::{golden_root, program};
use serde_json::Value;

/// What a run printed and how it ended.
pub(crate) struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        let Self { code: got, stdout, stderr } = &self;
        assert_eq!(*got, Some(code), "stdout:\n{stdout}\nstderr:\n{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in {}", self.stdout))
    }
}

/// Instead of the user's cache, on systems that ask this variable.
pub(crate) const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");

pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program());
    command.args(args).current_dir(golden_root()).env_remove("GLOBE_MODEL").stdin(Stdio::null());
    command.env("XDG_CACHE_HOME", CACHE);
    command
}

/// Runs globe in the folder of the checkpoints.
pub(crate) fn globe(line: &str) -> Run {
    run(command(line.split_whitespace()))
}

pub(crate) fn run(mut command: Command) -> Run {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    Run { code: output.status.code(), stdout, stderr }
}

/// The logits in what `globe logits --json` prints.
pub(crate) fn last_logits(json: &Value) -> Vec<f32> {
    json["last_logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

const LOCATE: &str = "locate images/photo.jpg --model window56 --samples 2 --max-tokens 8";

/// Names in a folder, hidden ones included.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| name(e.unwrap())).collect();
    names.sort();
    names
}

#[test]
fn random_weights_do_not_locate() {
    let run = globe(LOCATE).expect(3);
    assert!(run.stdout.starts_with("images/photo.jpg\n  not located"), "{}", run.stdout);
    assert!(!run.stdout.contains("0, 0") && !run.stdout.contains("0.00"), "{}", run.stdout);
    assert!(run.stderr.contains("answer 2 of 2 (model text, not evidence)"), "{}", run.stderr);
    let quiet = globe(&format!("{LOCATE} --quiet")).expect(3);
    assert_eq!((quiet.stdout, quiet.stderr.as_str()), (run.stdout, ""));
}

#[test]
fn every_format_can_be_read() {
    let json = globe(&format!("{LOCATE} --format json")).expect(3).json();
    let first = &json[0];
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(
        (&first["image"], &first["status"]),
        (&"images/photo.jpg".into(), &"not_located".into())
    );
    assert_eq!((&first["samples"], &first["candidates"]), (&2.into(), &Value::Array(vec![])));
    assert_eq!(first["answers"].as_array().unwrap().len(), 2);
    assert_eq!(first["timings"]["image_tokens"], 54);

    let lines = globe(&format!("{LOCATE} --format jsonl")).expect(3).stdout;
    let mut line: Value = serde_json::from_str(lines.strip_suffix('\n').unwrap()).unwrap();
    for measured in ["timings", "memory"] {
        line[measured] = first[measured].clone();
    }
    let phases = first["memory"].as_array().unwrap().iter();
    assert_eq!(
        phases.clone().map(|phase| phase["phase"].as_str().unwrap()).collect::<Vec<_>>(),
        ["load", "encode", "prefill", "decode"]
    );
    for phase in phases {
        let bytes = |field: &str| phase[field].as_u64().unwrap();
        assert!(bytes("device_bytes_in_use") > 400 << 10, "{phase}");
        assert!(bytes("device_bytes_reserved") >= bytes("device_bytes_in_use"), "{phase}");
    }
    assert_eq!(&line, first);

    let csv = globe(&format!("{LOCATE} --format csv")).expect(3).stdout;
    let rows: Vec<Vec<&str>> = csv.lines().map(|row| row.split(',').collect()).collect();
    assert_eq!(rows.len(), 2);
    let columns =
        "id rank lat lon radius_km confidence country_code region city parse_status seconds";
    assert_eq!(rows[0][..11].join(" "), columns);
    assert_eq!(rows[1][..10].join(","), "images/photo.jpg,,,,,,,,,not_located");

    let json = globe(&format!("{LOCATE} --format geojson")).expect(3).json();
    assert_eq!(json["type"], "FeatureCollection");
    assert_eq!(json["features"], Value::Array(vec![]));
    assert_eq!(json["images"][0]["status"], "not_located");
}

/// Real photos, one progressive, with EXIF fields, a comment or 4:4:4 colour.
const PHOTOS: [&str; 3] = ["images/china.jpg", "images/flower.jpg", "images/grace_hopper.jpg"];

/// Locates all photos in one run; random weights name no place.
fn locate_photos(format: &str) -> Run {
    let photos = PHOTOS.join(" ");
    let settings = "--model window56 --samples 2 --max-tokens 8";
    globe(&format!("locate {photos} {settings} --format {format}")).expect(3)
}

/// Asserts that the records are those of the photos, in order, and that none is located.
#[track_caller]
fn assert_not_located<'a>(records: impl IntoIterator<Item = &'a Value>) {
    let records: Vec<_> = records.into_iter().map(|r| [&r["image"], &r["status"]]).collect();
    assert_eq!(records, PHOTOS.map(|photo| [photo, "not_located"]));
}

/// The whole characters of a text that leave a mark: lines may break elsewhere, control characters
/// are shown as U+FFFD, and a character that the answer ends within is in the results alone.
fn visible(text: &str) -> String {
    let leaves_mark = |c: &char| !c.is_control() && !c.is_whitespace() && *c != '\u{fffd}';
    text.chars().filter(leaves_mark).collect()
}

/// The answers that standard error shows as they are written, under the lines that announce them.
fn streamed(stderr: &str) -> Vec<(String, String)> {
    let mut answers: Vec<(String, String)> = Vec::new();
    for line in stderr.lines() {
        if let Some(title) = line.strip_suffix(" (model text, not evidence)") {
            answers.push((title.into(), String::new()));
        } else if let Some(text) = line.strip_prefix("  | ") {
            answers.last_mut().unwrap().1 += &visible(text);
        }
    }
    answers
}

#[test]
fn real_photos_are_answered_in_one_run() {
    let text = locate_photos("text");
    let json = locate_photos("json").json();
    let results = json.as_array().unwrap();
    assert_not_located(results);
    let image_tokens = results.iter().map(|r| r["timings"]["image_tokens"].as_u64().unwrap());
    assert_eq!(image_tokens.collect::<Vec<_>>(), [54, 54, 56]);

    let shown = streamed(&text.stderr);
    let texts = |r: &Value| [0, 1].map(|n| visible(r["answers"][n]["text"].as_str().unwrap()));
    let answers = PHOTOS.iter().zip(results).flat_map(|(photo, result)| {
        let [first, second] = texts(result);
        [(format!("{photo}: answer 1 of 2"), first), (format!("{photo}: answer 2 of 2"), second)]
    });
    assert_eq!(shown, answers.collect::<Vec<_>>(), "what is shown is what the results hold");
    assert!(shown.iter().any(|(_, text)| !text.is_empty()));

    let titles = text.stdout.lines().filter(|line| !line.starts_with(' '));
    assert_eq!(titles.collect::<Vec<_>>(), PHOTOS);
    assert_eq!(text.stdout.matches("  not located: ").count(), 3, "{}", text.stdout);
}

#[test]
fn every_format_holds_every_photo() {
    let lines = locate_photos("jsonl").stdout;
    let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_not_located(&lines);

    let csv = locate_photos("csv").stdout;
    let rows: Vec<_> = csv.lines().skip(1).map(|row| row.split(',').collect::<Vec<_>>()).collect();
    let rows: Vec<_> = rows.iter().map(|row| (row[0], row[1..9].concat(), row[9])).collect();
    assert_eq!(rows, PHOTOS.map(|photo| (photo, String::new(), "not_located")));

    let json = locate_photos("geojson").json();
    assert_eq!(json["features"], Value::Array(vec![]));
    assert_not_located(json["images"].as_array().unwrap());
}

#[test]
fn a_bad_image_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.jpg");
    fs::write(&empty, []).unwrap();
    let empty = empty.display();
    let line = format!(
        "locate {empty} absent.jpg README.md images/photo.jpg images images/wide_140x84.png \
         --model window56 --samples 1 --max-tokens 4 --format jsonl --quiet"
    );
    let run = globe(&line).expect(4);
    let lines: Vec<Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_str().unwrap()).collect();
    let expected = ["failed", "failed", "failed", "not_located", "failed", "not_located"];
    assert_eq!(statuses, expected);
    assert!(lines[0]["error"].as_str().unwrap().contains("0 bytes"), "{}", lines[0]);
    assert!(lines[0].get("candidates").is_none());
    assert_eq!(run.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 4);
    assert!(run.stderr.contains("error: absent.jpg: "), "{}", run.stderr);
}

#[test]
fn a_file_appears_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("places.json");
    fs::write(&out, "old").unwrap();
    let line = format!("{LOCATE} --format json --out {}", out.display());
    let run = globe(&line).expect(3);
    assert_eq!(run.stdout, "");
    let json: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!(json[0]["status"], "not_located");
    assert_eq!(names(folder.path()), ["places.json"]);

    fs::write(&out, "old").unwrap();
    globe(&line.replace("window56", "images")).expect(2);
    assert_eq!(fs::read_to_string(&out).unwrap(), "old", "a failed run leaves the file alone");
    assert_eq!(names(folder.path()), ["places.json"]);
    globe(&format!("{LOCATE} --out {}/absent/places.txt", folder.path().display())).expect(2);
}

#[test]
fn wrong_usage_is_named() {
    for (line, expected) in [
        ("locate", "<IMAGE>"),
        ("locate images/photo.jpg", "pass --model DIR"),
        ("locate images/photo.jpg --model absent", "absent: not a folder"),
        ("locate images/photo.jpg --model window56/config.json", "not a folder"),
        ("locate images/photo.jpg --model images", "cannot load images: "),
        ("locate images/photo.jpg --model window56 --samples 0", "--samples"),
        ("locate images/photo.jpg --model window56 --top-p 1.5", "top_p is 1.5"),
        ("locate images/photo.jpg --model window56 --format xml", "geojson"),
        ("locate images/photo.jpg --model window56 --precision street", "country, region, city"),
        ("locate images/photo.jpg --model window56 --device tpu", "auto, gpu, software, cpu"),
        ("locate images/photo.jpg --model window56 --prompt absent.txt", "absent.txt"),
        ("locate images/photo.jpg --model window56 --out .", "is a folder"),
        ("logits --model window56", "--prompt"),
        ("logits --model window56 --prompt x --image absent.jpg", "cannot read absent.jpg"),
        ("inspect absent", "absent: not a folder"),
        ("tell", "unrecognized subcommand"),
    ] {
        let run = globe(line).expect(2);
        assert_eq!(run.stdout, "", "{line}");
        assert!(run.stderr.starts_with("error: "), "{line}: {}", run.stderr);
        assert!(run.stderr.contains(expected), "{line}: {}", run.stderr);
    }
}

#[test]
fn the_environment_can_name_the_model() {
    let mut locate = command("locate images/photo.jpg --samples 1 --max-tokens 2".split(' '));
    locate.env("GLOBE_MODEL", "window56");
    run(locate).expect(3);
}

#[test]
fn damaged_weights_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in names(&golden_root().join("window56")) {
        fs::copy(golden_root().join("window56").join(&name), folder.path().join(&name)).unwrap();
    }
    let weights = folder.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let model = folder.path().display();
    for len in [0, 4, 1000, bytes.len() - 1] {
        fs::write(&weights, &bytes[..len]).unwrap();
        for line in [
            format!("inspect {model}"),
            format!("locate images/photo.jpg --model {model}"),
            format!("logits --prompt x --model {model}"),
        ] {
            let run = globe(&line).expect(2);
            assert!(run.stderr.contains("model.safetensors: "), "{len} bytes: {}", run.stderr);
        }
    }
    fs::write(folder.path().join("config.json"), "{").unwrap();
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let problems = globe(&format!("inspect {model}")).expect(2).stderr;
    assert!(problems.contains("error: config.json: "), "{problems}");
    assert!(problems.contains("error: tokenizer.json: "), "every problem is named: {problems}");
}

#[test]
fn a_budget_too_small_is_named_before_weights_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in names(&golden_root().join("window56")) {
        if name != "model.safetensors" {
            fs::copy(golden_root().join("window56").join(&name), folder.path().join(&name))
                .unwrap();
        }
    }
    let model = folder.path().display();
    for line in [
        format!("locate images/photo.jpg --model {model} --memory-mb 1"),
        format!("logits --prompt x --model {model} --memory-mb 1"),
        format!("bench --model {model} --memory-mb 1"),
        format!("compare {model} {model} --images images --memory-mb 1"),
    ] {
        let run = globe(&line).expect(2);
        assert!(run.stderr.contains("the budget is 1.0 MiB (weights 0.5 MiB, "), "{}", run.stderr);
    }
    let mut locate = command(format!("locate images/photo.jpg --model {model}").split(' '));
    locate.env("GLOBE_MEMORY_MB", "1");
    assert!(run(locate).expect(2).stderr.contains("the budget is 1.0 MiB"));
    let shape = globe("bench --shape 7b --memory-mb 500").expect(2).stderr;
    assert!(shape.contains("the budget is 500.0 MiB"), "{shape}");
    globe("inspect window56 --memory-mb 0").expect(2);
    let unknown = command("inspect window56".split(' ')).env("GLOBE_MEMORY_MB", "much").output();
    assert_eq!(unknown.unwrap().status.code(), Some(2));
}

#[test]
fn answers_beyond_the_plan_are_cut_or_refused() {
    // One answer fits into 20 MiB, 64 at once take 33.
    let line = "locate images/photo.jpg --model window56 --max-tokens 300 --samples 64 \
                --memory-mb 20 --format json --quiet";
    let forced = globe(&format!("{line} --batch 64")).expect(2).stderr;
    assert!(forced.contains("the budget is 20.0 MiB") && forced.contains("--batch"), "{forced}");

    let line = "locate images/photo.jpg --model window56 --max-tokens 2 --samples 11 --format json";
    let answers = |line: &str| {
        let run = globe(line);
        // Two random tokens may name a place.
        assert!(matches!(run.code, Some(0 | 3)), "{}", run.stderr);
        run.json()
    };
    let (cut, alone) = (answers(line), answers(&format!("{line} --batch 1")));
    assert_eq!(
        (&cut[0]["timings"]["at_once"], &alone[0]["timings"]["at_once"]),
        (&8.into(), &1.into())
    );
    assert_eq!(cut[0]["answers"], alone[0]["answers"]);
    assert_eq!(cut[0]["answers"].as_array().unwrap().len(), 11);
}

#[test]
fn logits_have_their_shape_and_devices_agree() {
    let logits = |images: &str, device: &str| {
        let line = format!("logits --model window56 {images} --tokens 12 --device {device} --json");
        let mut command = command(line.split_whitespace());
        command.args(["--prompt", "Where was this photo taken?"]);
        run(command).expect(0).json()
    };
    let one = logits("--image images/wide_140x84.png", "auto");
    assert_eq!(one["image_grid_thw"], serde_json::json!([1, 6, 10]));
    assert_eq!(one["last_logits"].as_array().unwrap().len(), 405);
    assert_eq!(one["greedy"].as_array().unwrap().len(), 12);
    assert_eq!(one.as_object().unwrap().len(), 4);
    let cpu = logits("--image images/wide_140x84.png", "cpu");
    for field in ["greedy", "input_ids", "image_grid_thw"] {
        assert_eq!(one[field], cpu[field], "{field}");
    }

    let none = logits("", "cpu");
    assert!(none["image_grid_thw"].is_null());
    let two = logits("--image images/wide_140x84.png --image images/plain_56x84.png", "cpu");
    assert_eq!(two["image_grid_thw"], serde_json::json!([[1, 6, 10], [1, 6, 4]]));
}

#[test]
fn the_system_message_of_logits_is_the_one_given() {
    let n_ids = |system: &[&str]| {
        let line = "logits --model window56 --prompt x --tokens 0 --device cpu --json";
        let mut command = command(line.split(' '));
        command.args(system);
        let json = run(command).expect(0).json();
        assert_eq!(json["greedy"], Value::Array(vec![]));
        json["input_ids"].as_array().unwrap().len()
    };
    let default = n_ids(&[]);
    assert_eq!(n_ids(&["--system", "You are a helpful assistant."]), default);
    assert!(n_ids(&["--system", ""]) < default);
}

#[test]
fn names_are_looked_up() {
    let text = globe("geocode Paris München").expect(0).stdout;
    assert!(text.contains("Paris, Île-de-France, France [FR]"), "{text}");
    assert!(text.contains("Munich, Bavaria, Germany [DE]"), "{text}");
    let json = globe("geocode Springfield Nowhereville --format json").expect(3).json();
    let places = json[0]["places"].as_array().unwrap();
    assert!(places.len() > 3 && places.iter().all(|place| place["country_code"] == "US"));
    assert_eq!(
        (&json[1]["query"], &json[1]["places"]),
        (&"Nowhereville".into(), &Value::Array(vec![]))
    );
    assert_eq!(globe("geocode Nowhereville").expect(3).stdout, "Nowhereville: not found\n");
}

#[test]
fn folders_and_devices_are_described() {
    let json = globe("inspect window56 --json").expect(0).json();
    assert_eq!(
        (&json["architecture"], &json["dtypes"][0]["dtype"]),
        (&"qwen2_5_vl".into(), &"F16".into())
    );
    assert_eq!(json["text"]["vocab_size"], 405);
    assert_eq!(json["chat_template"], "tokenizer_config.json");
    assert!(globe("inspect window56").expect(0).stdout.contains("per 1000 tokens"));
    let small = globe("inspect window56 --memory-mb 8 --json").expect(0).json();
    let memory = &small["memory"];
    assert_eq!((&memory["budget_bytes"], &memory["fits"]), (&(8 << 20).into(), &false.into()));
    assert_eq!(memory["weights"], small["device_weight_bytes"]);
    assert!(
        globe("inspect window56 --memory-mb 64").expect(0).stdout.contains("64.00 MiB, enough")
    );

    // What a device would hold is what is planned for it.
    let held = |line: &str| globe(line).expect(0).json()["memory"]["weights"].as_u64().unwrap();
    let packed = held("inspect window56 --json");
    assert_eq!(
        held("inspect window56 --json --reference"),
        held("inspect window56 --json --device cpu")
    );
    assert!(held("inspect window56 --json --device cpu") > packed, "weights of 16 bits become f32");
    let refused = globe("inspect window56 --reference --cache-bits 16").expect(2).stderr;
    assert!(refused.contains("--cache-bits 16 needs the fast kernels"), "{refused}");
    let refused = globe("locate images/photo.jpg --model window56 --device cpu --memory-mb 8")
        .expect(2)
        .stderr;
    assert!(refused.contains("MiB"), "{refused}");

    let json = globe("devices --json").expect(0).json();
    let auto = &json["auto"];
    let adapters = json["adapters"].as_array().unwrap();
    assert!(adapters.iter().any(|adapter| &adapter["name"] == auto), "{json}");
    assert!(globe("devices").expect(0).stdout.contains("--device auto takes: "));
}

#[test]
fn choices_that_the_adapter_lacks_are_refused() {
    for line in ["devices", LOCATE] {
        let variables =
            [("GLOBE_LINEAR", "teams"), ("GLOBE_REPLAY", "wgpu"), ("GLOBE_REDUCE", "wide")];
        for (variable, known) in variables {
            let mut wrong = command(line.split_whitespace());
            wrong.env(variable, "abacus");
            let run = run(wrong).expect(2);
            assert!(run.stderr.contains(&format!("{variable}=abacus: ")), "{}", run.stderr);
            assert!(run.stderr.contains(known), "{}", run.stderr);
        }
    }
}

#[test]
fn help_version_and_completions_succeed() {
    assert!(globe("--version").expect(0).stdout.starts_with("globe "));
    assert!(globe("completions bash").expect(0).stdout.contains("--token-top-k"));
    for name in [
        "locate",
        "geocode",
        "inspect",
        "convert",
        "export",
        "verify",
        "devices",
        "logits",
        "completions",
    ] {
        let help = globe(&format!("{name} --help")).expect(0).stdout;
        assert!(help.contains("Examples:\n  globe "), "{help}");
    }
}

#[test]
fn equal_seeds_give_equal_answers() {
    let answers = |seed: u32| {
        let line = format!("{LOCATE} --seed {seed} --format json");
        let mut json = globe(&line).expect(3).json();
        json[0]["timings"] = Value::Null;
        json[0]["memory"] = Value::Null;
        json
    };
    let first = answers(7);
    assert_eq!(first, answers(7));
    assert_ne!(first[0]["answers"], answers(8)[0]["answers"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = command("completions bash".split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

/// Starts a run, sends Ctrl-C once standard error says `sign`, and gives the exit code.
#[cfg(unix)]
fn interrupt_at(sign: &str, line: &str) -> Option<i32> {
    let mut child = command(line.split_whitespace()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    for text in stderr.lines().map(Result::unwrap) {
        if text.contains(sign) {
            interrupt(&child);
        }
    }
    child.wait().unwrap().code()
}

#[cfg(unix)]
pub(crate) fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

#[cfg(unix)]
#[test]
fn an_interrupt_keeps_what_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("places.json");
    let images = "images/photo.jpg ".repeat(500);
    let line = format!("locate {images} --model window56 --samples 1 --max-tokens 1 --format json");
    let code = interrupt_at(" 1 answer in ", &format!("{line} --out {}", out.display()));
    assert_eq!(code, Some(130));
    let json: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    assert!((1..500).contains(&json.as_array().unwrap().len()));
    assert_eq!(names(folder.path()), ["places.json"]);
}

#[cfg(unix)]
#[test]
fn an_interrupt_before_the_first_result_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("places.txt");
    let line = "locate images/photo.jpg --model window56 --samples 100000";
    let code = interrupt_at("answer 1 of", &format!("{line} --out {}", out.display()));
    assert_eq!(code, Some(130));
    assert_eq!(names(folder.path()), Vec::<String>::new());
}
