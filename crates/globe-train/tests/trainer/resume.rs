//! Six steps are three, a kill, and three more.

use std::{
    env, fs,
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use globe_train::{Error, config::Config, trainer::TrainEvent};

use super::{Steps, config, run, trainer, write_data};

/// Metrics of all steps and the table at the end.
fn whole(config: &Config) -> (Steps, Vec<f32>) {
    let mut trainer = trainer(config);
    let steps = run(&mut trainer).unwrap();
    (steps, trainer.policy().table().to_vec())
}

/// Variants whose checkpoints fall into the middle of a generation, or not.
fn variants(config: &Config) -> Vec<Config> {
    let mut cut = config.clone();
    cut.training.steps_per_generation = 2;
    cut.training.iterations = 2;
    cut.loss.beta = 0.01;
    let mut dynamic = config.clone();
    dynamic.rollout.dynamic_sampling = true;
    vec![config.clone(), cut, dynamic]
}

#[test]
fn three_and_three_are_six() {
    for variant in 0..3 {
        let temp = tempfile::tempdir().unwrap();
        write_data(temp.path());
        let config = variants(&config(temp.path())).remove(variant);
        let (steps, table) = whole(&config);
        assert_eq!(steps.len(), 6);

        let mut second = trainer(&config);
        let loaded = second.store().load(3).unwrap();
        second.resume(&loaded, false).unwrap();
        assert_eq!(second.state().step, 3);
        let rest = run(&mut second).unwrap();
        assert_eq!(rest, steps[3..], "variant {variant}");
        assert!(second.policy().table() == table, "variant {variant}");
    }
}

#[test]
fn bad_photos_are_named_once_and_counted_across_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let (data, photo) = (temp.path().join("rows.jsonl"), temp.path().join("bad.png"));
    fs::write(&photo, "no photo").unwrap();
    let rows = fs::read_to_string(&data).unwrap();
    let mut rows: Vec<serde_json::Value> =
        rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (rows[4]["id"], rows[4]["image"]) = ("bad".into(), photo.to_str().unwrap().into());
    fs::write(&data, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();

    let config = config(temp.path());
    let (steps, _) = whole(&config);
    // Eighteen photos are drawn, of eight good ones a pass.
    assert!(steps[5]["data/bad_images"] >= 2.0, "{}", steps[5]["data/bad_images"]);
    let mut second = trainer(&config);
    second.resume(&second.store().load(3).unwrap(), false).unwrap();
    assert_eq!(run(&mut second).unwrap(), steps[3..]);

    let mut warnings = Vec::new();
    let mut watch = |event: &TrainEvent<'_>| {
        if let TrainEvent::Warning(text) = event {
            warnings.push((*text).to_owned());
        }
        Ok(())
    };
    fs::remove_dir_all(&config.run.output).unwrap();
    trainer(&config).run(&mut watch, &AtomicBool::new(false)).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("photo of row bad left out: "), "{warnings:?}");
}

const CHILD: &str = "GLOBE_TEST_RUN_IN";

/// What the killed process runs: the same training, with a pause after every step.
#[test]
fn child_of_the_kill_test() {
    let Some(folder) = env::var_os(CHILD) else {
        return;
    };
    let mut trainer = trainer(&config(folder.as_ref()));
    let mut watch = |event: &TrainEvent<'_>| {
        if matches!(event, TrainEvent::Step(_)) {
            thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    };
    trainer.run(&mut watch, &Default::default()).unwrap();
}

#[test]
fn a_killed_process_goes_on_as_if_nothing_had_happened() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["resume::child_of_the_kill_test", "--exact"])
        .env(CHILD, temp.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let config = config(temp.path());
    let mut second = trainer(&config);
    let patience = Instant::now();
    while !second.store().path(3).exists() {
        assert!(patience.elapsed() < Duration::from_secs(60), "no checkpoint appeared");
        thread::sleep(Duration::from_millis(10));
    }
    // SIGKILL on Unix: nothing is flushed, nothing is told.
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());

    let loaded = second.store().newest().unwrap().unwrap();
    assert_eq!(loaded.step, 3);
    second.resume(&loaded, false).unwrap();
    let rest = run(&mut second).unwrap();
    let other = tempfile::tempdir().unwrap();
    write_data(other.path());
    let mut undisturbed = self::config(other.path());
    undisturbed.run.seed = config.run.seed;
    let (steps, table) = whole(&undisturbed);
    assert_eq!(rest, steps[3..]);
    assert!(second.policy().table() == table);
}

#[test]
fn a_changed_configuration_is_refused_unless_allowed() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let config = config(temp.path());
    whole(&config);
    let mut changed = config.clone();
    changed.optimiser.lr = 0.2;
    changed.watch.samples = 1;
    let mut second = trainer(&changed);
    let loaded = second.store().load(3).unwrap();
    let error = second.resume(&loaded, false).unwrap_err();
    let Error::ResumeChanged { differences } = &error else { panic!("{error}") };
    assert_eq!(differences, &["optimiser.lr: 0.1 -> 0.2"]);
    assert_eq!(globe_train::trainer::resume_differences(&loaded, &changed).unwrap().len(), 2);
    second.resume(&loaded, true).unwrap();
    assert_eq!(run(&mut second).unwrap().len(), 3);

    let mut harmless = config.clone();
    harmless.watch.samples = 1;
    trainer(&harmless).resume(&loaded, false).unwrap();
}

#[test]
fn a_checkpoint_of_another_model_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let config = config(temp.path());
    whole(&config);
    let mut other = globe_train::trainer::Trainer::new(
        config.clone(),
        super::Tabular::new(2),
        super::stream(&config),
        super::rewards(),
    );
    let loaded = other.store().load(3).unwrap();
    let error = other.resume(&loaded, false).unwrap_err().to_string();
    assert!(
        error.contains("made with base `table of 3`, but the model is `table of 2`"),
        "{error}"
    );
}

#[test]
fn old_checkpoints_go_and_a_damaged_one_offers_the_one_before() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let mut config = config(temp.path());
    config.checkpoint.every = 1;
    config.checkpoint.keep = 2;
    whole(&config);
    let store = trainer(&config).store().clone();
    assert_eq!(store.steps().unwrap(), [5, 6]);
    fs::write(store.path(6).join("state.json"), "{}").unwrap();
    let error = store.newest().unwrap_err().to_string();
    assert!(error.contains("step-00000005 is sound"), "{error}");
    let mut second = trainer(&config);
    second.resume(&store.load(5).unwrap(), false).unwrap();
    assert_eq!(run(&mut second).unwrap().len(), 1);
}
