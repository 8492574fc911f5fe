//! From a configuration to the parts of a run that need no device.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use globe_geo::Gazetteer;

use crate::{
    Result,
    config::{Config, GeoKind, JudgeKind, LoraSection},
    data::{Dataset, Part, Stream, StreamOptions},
    rewards::{
        Format, Geo, GeoForm, Judge, JudgeServer, Lexicon, Locatability, RewardSet, ServerConfig,
        Visual,
    },
    watch::{EventFile, MetricsFile, Report, Watchers},
};

/// The data of a configuration, one part of its split.
///
/// # Errors
/// Those of [`Dataset::open`].
pub fn stream(config: &Config, part: Part) -> Result<Stream> {
    let section = &config.data;
    let images = Some(Path::new(&section.images)).filter(|p| !p.as_os_str().is_empty());
    let data = Dataset::open(Path::new(&section.path), images)?;
    let options = StreamOptions {
        seed: config.run.seed,
        shuffle: section.shuffle,
        window_blocks: section.window_blocks,
        eval_fraction: section.eval_fraction,
        part,
    };
    Ok(Stream::new(data, options))
}

/// The rewards of a configuration. A reward of weight 0 is left out.
///
/// `clues` are all clues of the data ([`Dataset::clues`]), asked for only if needed. `adapter_judge`
/// makes the judge of `rewards.judge = "adapter"` from the folder of its adapter.
///
/// # Errors
/// Those of the closures, and of the address of the server.
pub fn rewards(
    config: &Config,
    gazetteer: Arc<Gazetteer>,
    clues: impl FnOnce() -> Result<BTreeSet<String>>,
    adapter_judge: &mut dyn FnMut(&Path) -> Result<Box<dyn Judge>>,
) -> Result<RewardSet> {
    let section = &config.rewards;
    let mut judge = || match section.judge {
        JudgeKind::Adapter => adapter_judge(Path::new(&section.judge_adapter)),
        _ => Ok(Box::new(JudgeServer::new(server(config))?) as Box<dyn Judge>),
    };
    let mut set = RewardSet::new(section.combination);
    if section.geo != 0.0 {
        let form = match section.geo_form {
            GeoKind::Names => GeoForm::Names { alpha: section.geo_alpha, names: section.geo_match },
            GeoKind::Distance => GeoForm::Distance { tau_km: section.geo_tau_km },
        };
        set = set.with(Geo::new(gazetteer, form), section.geo);
    }
    if section.visual != 0.0 {
        let clues = clues()?;
        let lexicon = Lexicon::new(clues.iter().map(String::as_str));
        let visual = Visual::new(lexicon, section.visual_form);
        let visual = if section.visual_verify { visual.with_verifier(judge()?) } else { visual };
        set = set.with(visual, section.visual);
    }
    if section.locatability != 0.0 {
        set = set.with(Locatability::new(judge()?), section.locatability);
    }
    // Logged and gated on even where its weight is 0.
    Ok(set.with(Format, section.format))
}

fn server(config: &Config) -> ServerConfig {
    let section = &config.rewards;
    ServerConfig {
        url: section.judge_url.clone(),
        model: section.judge_model.clone(),
        attempts: section.judge_attempts,
        backoff_ms: 500,
        timeout_ms: (section.judge_timeout_s * 1000.0) as u64,
        parallel: section.judge_parallel,
        top_logprobs: 5,
    }
}

/// The watchers that write files into `run.output`; add lines or a terminal to them.
pub fn watchers(config: &Config) -> Watchers {
    let output = PathBuf::from(&config.run.output);
    let metrics = output.join("metrics.jsonl");
    let mut watchers = Watchers::default().with(MetricsFile::new(&metrics));
    if config.watch.tensorboard {
        watchers = watchers.with(EventFile::new(output.join("tensorboard")));
    }
    watchers.with(Report::new(output.join("report"), metrics))
}

/// The file configuration of a new adapter. Its modules are a pattern, as PEFT matches whole names:
/// the vision tower has projections of the same names, which a plain list would include.
pub fn adapter_config(lora: &LoraSection, base: &str) -> crate::checkpoint::AdapterConfig {
    crate::checkpoint::AdapterConfig {
        base_model_name_or_path: Some(base.to_owned()),
        r: lora.rank,
        lora_alpha: lora.alpha,
        use_rslora: lora.rslora,
        target_modules: format!(r".*\.language_model\..*\.({})", lora.targets.join("|")).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewards::YesNo;

    struct Never;

    impl Judge for Never {
        fn judge(&mut self, _: &[crate::rewards::JudgeRequest<'_>]) -> Result<Vec<YesNo>> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn weights_choose_the_rewards() {
        let gazetteer = Arc::new(Gazetteer::full().unwrap());
        let mut folders = Vec::new();
        let mut names = |config: &Config| {
            let mut judge = |folder: &Path| {
                folders.push(folder.to_owned());
                Ok(Box::new(Never) as Box<dyn Judge>)
            };
            let clues = || Ok(BTreeSet::new());
            rewards(config, gazetteer.clone(), clues, &mut judge).unwrap().weights()
        };
        let mut config = Config::default();
        let pair = |name: &str, weight| (name.to_owned(), weight);
        assert_eq!(names(&config), [pair("geo", 1.0), pair("visual", 0.5), pair("format", 1.0)]);
        config.rewards.visual_verify = true;
        config.rewards.judge = JudgeKind::Adapter;
        config.rewards.judge_adapter = "judge".into();
        config.rewards.locatability = 0.2;
        config.rewards.geo = 0.0;
        config.rewards.format = 0.0;
        let want = [pair("visual", 0.5), pair("locatability", 0.2), pair("format", 0.0)];
        assert_eq!(names(&config), want);
        assert_eq!(folders, [PathBuf::from("judge"), PathBuf::from("judge")]);
    }

    #[test]
    fn a_new_adapter_has_the_configured_scale() {
        let adapter = adapter_config(&LoraSection::default(), "base");
        assert_eq!(adapter.scaling(), 2.0);
        let modules = adapter.target_modules.as_str().unwrap();
        assert!(modules.starts_with(r".*\.language_model\..*\.(q_proj|k_proj|"), "{modules}");
    }
}
