use super::*;

#[track_caller]
fn refused(text: &str, part: &str) {
    let error = Config::parse(text, "run.toml").unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}

#[test]
fn typos_are_refused_with_line_and_hint() {
    refused(
        "[rollout]\ngroupsize = 8\n",
        "run.toml:2: unknown key `groupsize` in [rollout]; the nearest key is `group_size`",
    );
    refused(
        "\n\n[rolout]\n",
        "run.toml:3: unknown section or key `rolout`; the nearest section is `rollout`",
    );
    refused("[loss]\nlr = 1.0\n", "unknown key `lr` in [loss]; it belongs into [optimiser]");
    refused("lr = 1.0\n", "run.toml:1: unknown section or key `lr`; it belongs into [optimiser]");
    refused("[loss]\nqqq = 1\n", "unknown key `qqq` in [loss]");
    refused("[loss]\nbeta = \"x\"\n", "run.toml:2: invalid type: string \"x\", expected f64");
    refused(
        "[loss]\nloss_type = \"dpo\"\n",
        "unknown variant `dpo`, expected one of `grpo`, `bnpo`",
    );
    refused("[loss\n", "run.toml:1");
}

#[test]
fn values_that_make_no_sense_are_refused() {
    refused("[rollout]\ngroup_size = 1\n", "at least 2");
    refused("[rollout]\ntemperature = 0.0\n", "rollout.temperature is 0");
    refused("[rollout]\ntop_p = 1.5\n", "between 0 and 1");
    refused("[optimiser]\nlr = nan\n", "optimiser.lr is NaN");
    refused("[loss]\nbeta = -1\n", "must not be negative");
    refused("[training]\nsteps_per_generation = 5\n", "does not divide the 48 answers");
    refused("[rewards]\nlocatability = 0.2\n", "rewards.judge is `none`");
    refused("[rewards]\njudge = \"adapter\"\n", "judge_adapter is empty");
    refused("[rewards]\ngeo = 0\nvisual = 0\nformat = 0\n", "nothing would be learnt");
    refused("[lora]\ntargets = []\n", "nothing would be trained");
}

#[test]
fn left_out_keys_keep_defaults_and_integers_are_numbers() {
    let config = Config::parse("[loss]\nbeta = 1\n", "x").unwrap();
    assert_eq!(config.loss.beta, 1.0);
    assert_eq!(Config { loss: Default::default(), ..config }, Config::default());
}

#[test]
fn documented_text_reads_back_and_names_every_key() {
    let config = Config::default();
    let text = config.documented();
    assert_eq!(Config::parse(&text, "x").unwrap(), config);
    for key in Config::keys() {
        assert!(!key.doc.is_empty() && text.contains(&format!("\n{} = ", key.name)), "{key:?}");
    }
}
