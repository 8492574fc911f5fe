//! All watchers on a real run, and on one that goes on.

use std::{fs, sync::atomic::AtomicBool};

use globe_train::watch::{EventFile, Lines, MetricsFile, Report, Watchers, read_metrics};

use super::{config, trainer, write_data};

/// `GLOBE_REPORT=folder` keeps the report, to be looked at.
#[test]
fn files_of_a_run_that_goes_on_are_those_of_one_that_never_stopped() {
    let temp = tempfile::tempdir().unwrap();
    write_data(temp.path());
    let mut config = config(temp.path());
    config.training.steps = 40;
    config.rollout.group_size = 16;
    config.optimiser.lr = 0.3;
    config.checkpoint.every = 20;
    config.watch.samples_every = 8;
    let folder = match std::env::var_os("GLOBE_REPORT") {
        Some(folder) => folder.into(),
        None => temp.path().join("watch"),
    };
    let metrics = folder.join("metrics.jsonl");
    let watchers = || {
        Watchers::default()
            .with(MetricsFile::new(&metrics))
            .with(EventFile::new(folder.join("tensorboard")))
            .with(Report::new(folder.join("report"), &metrics))
            .with(Lines::new(std::io::sink()))
    };
    let stop = AtomicBool::new(false);
    let mut first = trainer(&config);
    first.run(&mut watchers(), &stop).unwrap();
    let without_times = || {
        let mut steps = read_metrics(&metrics).unwrap();
        steps.iter_mut().for_each(|s| s.values.retain(|name, _| !name.starts_with("time/")));
        steps
    };
    let samples = || fs::read_to_string(folder.join("report/samples.jsonl")).unwrap();
    let (steps, sampled) = (without_times(), samples());
    assert_eq!(steps.len(), 40);
    assert_eq!(sampled.lines().count(), 5 * 3);

    let mut second = trainer(&config);
    second.resume(&second.store().load(20).unwrap(), false).unwrap();
    second.run(&mut watchers(), &stop).unwrap();
    assert_eq!(without_times(), steps);
    assert_eq!(samples(), sampled);
    let page = fs::read_to_string(folder.join("report/index.html")).unwrap();
    assert_eq!(page.matches("<article>").count(), 15);
    assert!(page.contains("rewards/geo/mean") && page.contains("Paris, France"));
    assert_eq!(fs::read_dir(folder.join("tensorboard")).unwrap().count(), 2);
}
